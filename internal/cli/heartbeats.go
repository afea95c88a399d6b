package cli

import (
	"context"
	"strconv"

	migcontrollerv1 "github.com/mig-controller/mig-controller/gen/go/migcontroller/v1"
)

type heartbeatsCmd struct {
	VM    string `arg:"" name:"vm" help:"The VM's id."`
	Limit int    `default:"20" placeholder:"N" help:"Show at most the N latest (${default}); 0 means all that are stored."`
}

// Help returns the command's help text.
func (heartbeatsCmd) Help() string {
	return examples("The controller stores the latest heartbeats of each VM.", "migctl heartbeats vm-1 --limit 5")
}

// Run lists the heartbeats of a VM.
func (cmd heartbeatsCmd) Run(ctx context.Context, in *invocation) error {
	if err := checkLimit(cmd.Limit); err != nil {
		return err
	}
	if err := in.dial(); err != nil {
		return err
	}
	req := &migcontrollerv1.ListHeartbeatsRequest{VmId: cmd.VM}
	heartbeats, more, err := listPages(cmd.Limit, func(size int32, token string) ([]*migcontrollerv1.HeartbeatRecord, string, error) {
		req.PageSize, req.PageToken = size, token
		res, err := callRPC(ctx, in, 0, in.client.ListHeartbeats, req)
		return res.GetHeartbeats(), res.GetNextPageToken(), err
	})
	if err != nil {
		if detailOf(err).GetReason() != migcontrollerv1.ErrorReason_ERROR_REASON_NOT_FOUND {
			return err
		}
		return lookupError{err, in.vmHint(ctx, cmd.VM)}
	}
	if err := writeList(in, heartbeats, in.heartbeatTable(heartbeats), "No heartbeats are stored."); err != nil {
		return err
	}
	in.noteMore(more)
	return nil
}

func (in *invocation) heartbeatTable(heartbeats []*migcontrollerv1.HeartbeatRecord) table {
	t := table{columns: []column{
		{title: "RECEIVED"},
		{title: "STATUS"},
		{title: "RUNNER", drop: 5},
		{title: "CONFIGURED", drop: 1},
		{title: "JOB", drop: 6},
		{title: "CPU", drop: 4},
		{title: "MEMORY", drop: 3},
		{title: "DISK", drop: 2},
		{title: "SOURCE", wide: true},
		{title: "EPOCH", wide: true},
		{title: "SENT", wide: true},
	}}
	for _, h := range heartbeats {
		cpu, memory, disk := usageCells(h.GetHealth())
		t.add(
			in.when(h.GetReceivedAt()), statusCell(h.GetStatus()), plain(h.GetRunner().GetState()),
			configuredCell(h), plain(jobText(h.GetCurrentJob())),
			cpu, memory, disk,
			plain(sourceName(h.GetSource())), plain(strconv.FormatInt(h.GetSessionEpoch(), 10)), in.when(h.GetSentAt()),
		)
	}
	return t
}

// configuredCell shows whether the runner is configured, which heartbeats over HTTP do not
// report.
func configuredCell(h *migcontrollerv1.HeartbeatRecord) cell {
	switch {
	case h.GetRunner() == nil, h.GetSource() != migcontrollerv1.ReportSource_REPORT_SOURCE_STREAM:
		return cell{}
	case h.GetRunner().GetConfigured():
		return plain("yes")
	default:
		return plain("no")
	}
}
