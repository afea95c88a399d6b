package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/protobuf/types/known/structpb"

	migcontrollerv1 "github.com/mig-controller/mig-controller/gen/go/migcontroller/v1"
)

type eventsCmd struct {
	VM     string  `name:"vm" placeholder:"VM" help:"Only events of this VM."`
	Type   string  `placeholder:"TYPE" help:"Only events of this type, such as vm_started or job_completed."`
	Since  timeArg `placeholder:"WHEN" help:"Only events received since WHEN: 1h (an hour ago), or a time such as 2006-01-02T15:04:05Z."`
	Until  timeArg `placeholder:"WHEN" help:"Only events received before WHEN, written the same way."`
	Limit  int     `default:"50" placeholder:"N" help:"Show at most the N latest (${default}); 0 means all."`
	Follow bool    `short:"f" help:"Then keep showing new events, the latest last, until interrupted."`
}

// Help returns the command's help text.
func (eventsCmd) Help() string {
	return examples(
		"",
		"migctl events --vm vm-1",
		"migctl events --since 1h --type runner_crashed",
		"migctl events -f",
	)
}

// Run lists events, and with --follow continues with new events.
func (cmd eventsCmd) Run(ctx context.Context, in *invocation) error {
	req, err := cmd.request(in)
	if err != nil {
		return err
	}
	if err := in.dial(); err != nil {
		return err
	}
	if cmd.Follow {
		return cmd.follow(ctx, in, req)
	}
	events, more, err := cmd.list(ctx, in, req)
	if err != nil {
		return err
	}
	if err := writeList(in, events, in.eventTable(events), "No event matches."); err != nil {
		return err
	}
	in.noteMore(more)
	return nil
}

func (cmd eventsCmd) request(in *invocation) (*migcontrollerv1.ListEventsRequest, error) {
	req := &migcontrollerv1.ListEventsRequest{VmId: cmd.VM, Type: cmd.Type}
	var err error
	if req.Since, req.Until, err = in.period(cmd.Since, cmd.Until); err != nil {
		return nil, err
	}
	if cmd.Follow && req.GetUntil() != nil {
		return nil, usage("--until and --follow exclude each other")
	}
	return req, checkLimit(cmd.Limit)
}

func (cmd eventsCmd) list(
	ctx context.Context, in *invocation, req *migcontrollerv1.ListEventsRequest,
) (events []*migcontrollerv1.Event, more bool, err error) {
	return listPages(cmd.Limit, func(size int32, token string) ([]*migcontrollerv1.Event, string, error) {
		req.PageSize, req.PageToken = size, token
		res, err := callRPC(ctx, in, 0, in.client.ListEvents, req)
		return res.GetEvents(), res.GetNextPageToken(), err
	})
}

// follow starts the watch before it lists, so that no event is missed, and deduplicates
// events. Events are stored longer than changes: if an outage was too long to resume the
// watch, it lists the events received since the last one shown.
func (cmd eventsCmd) follow(ctx context.Context, in *invocation, req *migcontrollerv1.ListEventsRequest) error {
	listed := false
	var shown int64
	show := func(e *migcontrollerv1.Event) error {
		if e.GetEventId() <= shown || cmd.Type != "" && e.GetType() != cmd.Type {
			return nil
		}
		shown, req.Since = e.GetEventId(), e.GetReceivedAt()
		return in.eventLine(e)
	}
	list := func() error {
		events, _, err := cmd.list(ctx, in, req)
		for _, e := range slices.Backward(events) {
			if err := show(e); err != nil {
				return err
			}
		}
		return err
	}
	resync := func(string) error {
		cmd.Limit = 0
		return list()
	}
	return in.watch(ctx, "", cmd.VM, func(change *migcontrollerv1.WatchFleetResponse) error {
		if !listed {
			listed = true
			if err := list(); err != nil {
				return err
			}
		}
		if e := change.GetEvent(); e != nil {
			return show(e)
		}
		return nil
	}, resync)
}

// eventLine prints one event of a stream.
func (in *invocation) eventLine(e *migcontrollerv1.Event) error {
	if in.structured() {
		return in.writeLine(e)
	}
	in.writeChange(e.GetReceivedAt(), e.GetVmId(), plain(e.GetType()), "", details(e.GetBody()))
	return nil
}

func (in *invocation) eventTable(events []*migcontrollerv1.Event) table {
	t := table{columns: []column{
		{title: "RECEIVED"},
		{title: "ID", wide: true},
		{title: "VM"},
		{title: "TYPE"},
		{title: "POOL", wide: true},
		{title: "SOURCE", wide: true},
		{title: "OCCURRED", wide: true},
		{title: "DETAILS", drop: 1, text: true},
	}}
	for _, e := range events {
		source := sourceName(e.GetSource())
		t.add(
			in.when(e.GetReceivedAt()), plain(strconv.FormatInt(e.GetEventId(), 10)), plain(e.GetVmId()), plain(e.GetType()),
			plain(e.GetPoolId()), plain(source), in.when(e.GetOccurredAt()), plain(details(e.GetBody())),
		)
	}
	return t
}

// commonFields are the fields of an event body that have their own columns.
var commonFields = []string{"type", "vm_id", "pool_id", "org_id", "timestamp"}

// details formats the type-specific fields of an event.
func details(body *structpb.Struct) string {
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(body.GetFields())) {
		value := body.GetFields()[name]
		inner := value.GetStructValue()
		switch {
		case slices.Contains(commonFields, name):
		case inner != nil && (name == "data" || name == "metadata"):
			if text := details(inner); text != "" {
				parts = append(parts, text)
			}
		default:
			parts = append(parts, name+"="+valueText(value))
		}
	}
	return strings.Join(parts, " ")
}

// valueText formats a value: strings unquoted, anything else as JSON.
func valueText(v *structpb.Value) string {
	if _, ok := v.GetKind().(*structpb.Value_StringValue); ok {
		return v.GetStringValue()
	}
	text, err := json.Marshal(v.AsInterface())
	if err != nil {
		return fmt.Sprint(v.AsInterface())
	}
	return string(text)
}

// sourceName returns the name of a report source: stream or http.
func sourceName(s migcontrollerv1.ReportSource) string {
	return strings.ToLower(strings.TrimPrefix(s.String(), "REPORT_SOURCE_"))
}
