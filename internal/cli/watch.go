package cli

import (
	"context"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/mig-controller/mig-controller/gen/go/migclient"
	migcontrollerv1 "github.com/mig-controller/mig-controller/gen/go/migcontroller/v1"
)

type watchCmd struct {
	VM     string `name:"vm" placeholder:"VM" help:"Only changes to this VM."`
	Cursor string `placeholder:"CURSOR" help:"Start right after this cursor of an earlier watch, so that no change is missed."`
}

// Help returns the command's help text.
func (watchCmd) Help() string {
	return examples(
		"Shows changes to VMs and commands, and new events, until interrupted. When the connection breaks, "+
			"it reconnects and misses nothing. A heartbeat that changes nothing else is not shown.",
		"migctl watch",
		"migctl watch --vm vm-1",
	)
}

// Run prints changes until interrupted. An interrupt is not an error.
func (cmd watchCmd) Run(ctx context.Context, in *invocation) error {
	if err := in.dial(); err != nil {
		return err
	}
	cursor := cmd.Cursor
	show := func(change *migcontrollerv1.WatchFleetResponse) error {
		cursor = change.GetCursor()
		return in.showChange(change)
	}
	err := in.watch(ctx, cmd.Cursor, cmd.VM, show, func(cursor string) error { return cmd.resync(ctx, in, cursor, show) })
	if ctx.Err() != nil {
		in.freshLine()
	}
	if cursor != cmd.Cursor && !in.structured() {
		fmt.Fprintf(in.stderr, "To continue from here: migctl watch --cursor %s\n", printable(cursor))
	}
	return err
}

// resync prints the current state of the VMs, as if each had just changed, because some
// changes were missed.
func (cmd watchCmd) resync(
	ctx context.Context, in *invocation, cursor string, show func(*migcontrollerv1.WatchFleetResponse) error,
) error {
	vms, _, err := vmFilter{}.list(ctx, in, 0)
	if err != nil {
		return err
	}
	now := timestamppb.New(in.now())
	for _, v := range vms {
		if cmd.VM != "" && cmd.VM != v.GetVmId() {
			continue
		}
		change := &migcontrollerv1.WatchFleetResponse_Vm{Vm: v}
		if err := show(&migcontrollerv1.WatchFleetResponse{Cursor: cursor, ChangedAt: now, Change: change}); err != nil {
			return err
		}
	}
	return nil
}

// watch calls show with every response of WatchFleet, including those with only a cursor.
// When the stream breaks, it resumes from the last cursor. If the changes after that
// cursor are no longer stored, it starts over and calls resync with the first new cursor.
// It returns an error if the first attempt fails, if the controller rejects a later one,
// or if show or resync fails. It returns nil when ctx is done.
func (in *invocation) watch(
	ctx context.Context, cursor, vm string, show func(*migcontrollerv1.WatchFleetResponse) error, resync func(cursor string) error,
) error {
	used, err := in.credentials.use(ctx)
	if err != nil {
		return err
	}
	watchCtx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	// --timeout applies to the first response only.
	timeoutErr := connect.NewError(connect.CodeDeadlineExceeded, context.DeadlineExceeded)
	first := time.AfterFunc(time.Duration(in.Timeout), func() { cancel(timeoutErr) })
	defer first.Stop()
	w := watchState{in: in, cursor: cursor, show: show, resync: resync, first: first}
	for {
		err := w.follow(watchCtx, &migcontrollerv1.WatchFleetRequest{Cursor: w.cursor, VmId: vm})
		renewed, failed := in.credentials.renew(ctx, used, err)
		switch {
		case ctx.Err() != nil:
			return nil // interrupted
		case failed != nil:
			return failed
		case renewed:
			if used, err = in.credentials.use(ctx); err != nil {
				return err
			}
			if !w.started {
				first.Reset(time.Duration(in.Timeout))
			}
		case w.started && !w.failed && !w.incomplete && expired(err):
			fmt.Fprintln(in.stderr, "The changes in between are no longer stored; listing everything again.")
			w.cursor, w.incomplete = "", true
		default:
			return err
		}
	}
}

// watchState is the state of a watch across its streams.
type watchState struct {
	in     *invocation
	cursor string
	show   func(*migcontrollerv1.WatchFleetResponse) error
	resync func(cursor string) error
	first  *time.Timer // timeout of the first response
	// started is set after the first response, disconnected while the controller is
	// unreachable, incomplete until missed changes are resynced, and failed when show or
	// resync returned an error.
	started, disconnected, incomplete, failed bool
}

// follow receives changes until there is an error, which it returns.
func (w *watchState) follow(ctx context.Context, request *migcontrollerv1.WatchFleetRequest) error {
	follower := migclient.Follower{Admin: w.in.client, Broken: w.onDisconnect, Silence: w.in.silence, Pause: w.in.pause}
	for change, err := range follower.Follow(ctx, request) {
		if err != nil {
			return err
		}
		if err := w.receive(change); err != nil {
			w.failed = true
			return err
		}
	}
	return nil
}

// onDisconnect reports a lost connection. Before the first response it returns err, which
// ends the watch.
func (w *watchState) onDisconnect(err error) error {
	if !w.started {
		return err
	}
	if !w.disconnected {
		fmt.Fprintln(w.in.stderr, "Lost the connection to the controller; reconnecting.")
	}
	w.disconnected = true
	return nil
}

// receive shows one change, after reporting a new connection and resyncing if necessary.
func (w *watchState) receive(change *migcontrollerv1.WatchFleetResponse) error {
	w.first.Stop()
	w.in.credentials.accepted()
	if !w.started || w.disconnected {
		w.in.reportConnected(w.started, w.incomplete)
	}
	incomplete := w.incomplete
	w.started, w.disconnected, w.incomplete = true, false, false
	if incomplete {
		if err := w.resync(change.GetCursor()); err != nil {
			return err
		}
	}
	w.cursor = change.GetCursor()
	return w.show(change)
}

// expired reports whether the changes after a cursor are no longer stored.
func expired(err error) bool {
	return detailOf(err).GetReason() == migcontrollerv1.ErrorReason_ERROR_REASON_CURSOR_EXPIRED
}

// reportConnected reports that the watch has connected or reconnected.
func (in *invocation) reportConnected(reconnected, incomplete bool) {
	switch {
	case incomplete:
		fmt.Fprintln(in.stderr, "Reconnected.")
	case reconnected:
		fmt.Fprintln(in.stderr, "Reconnected; nothing was missed.")
	case in.stderrTTY:
		fmt.Fprintf(in.stderr, "Watching %s; press Ctrl-C to stop.\n", in.address)
	}
}

func (in *invocation) showChange(change *migcontrollerv1.WatchFleetResponse) error {
	if change.GetChange() == nil {
		return nil
	}
	if in.structured() {
		return in.writeLine(change)
	}
	at := change.GetChangedAt()
	switch {
	case change.GetVm() != nil:
		v := change.GetVm()
		text := fmt.Sprintf("%s registration=%s", orDash(vmStatusCell(v).text), registrationCell(v.GetRegistration()).text)
		if job := jobText(v.GetCurrentJob()); job != "" {
			text += " job=" + job
		}
		state := cell{text: "offline", tone: bad}
		if v.GetConnected() {
			state = cell{text: "connected", tone: good}
		}
		in.writeChange(at, v.GetVmId(), state, text, "")
	case change.GetCommand() != nil:
		c := change.GetCommand()
		text, why := c.GetCommand().GetType()+" "+c.GetCommand().GetId(), reason(c)
		if why != "" {
			text += ": "
		}
		in.writeChange(at, c.GetVmId(), stateCell(c.GetState()), text, why)
	case change.GetEvent() != nil:
		e := change.GetEvent()
		in.writeChange(at, e.GetVmId(), plain(e.GetType()), "", details(e.GetBody()))
	}
	return nil
}

// writeChange prints one change of a stream. The columns have fixed widths because later
// rows are unknown. The summary is never truncated, because it contains the ids.
// On a narrow terminal the date is omitted, and a summary and detail that do not fit are
// printed below the line. The detail is truncated to the lines that its first minText
// characters need.
func (in *invocation) writeChange(at *timestamppb.Timestamp, vm string, state cell, summary, detail string) {
	const vmWidth, stateWidth, narrow = 16, 17, 100
	width := in.width()
	if in.Output == outWide {
		width = 0
	}
	timestamp := clockTime(at)
	if width > 0 && width < narrow {
		timestamp = at.AsTime().Format("15:04:05Z")
	}
	label := printable(state.text)
	line := fmt.Sprintf("%s  %-*s  ", timestamp, vmWidth, printable(vm))
	pad := max(stateWidth-utf8.RuneCountInString(label), 0)
	used := utf8.RuneCountInString(line) + utf8.RuneCountInString(label) + pad + len(gap)
	rest, below := changeText(printable(summary), printable(detail), width, used)
	rest = strings.TrimRight(strings.Repeat(" ", pad)+gap+rest, " ")
	fmt.Fprintf(in.stdout, "%s%s%s\n", line, paint(label, state.tone, in.colour()), rest)
	for _, line := range below {
		fmt.Fprintln(in.stdout, indent+line)
	}
}

// changeText splits the text of a change into the part that follows the used columns of
// its line and the lines below. With a width of 0 nothing is truncated or wrapped.
func changeText(summary, detail string, width, used int) (rest string, below []string) {
	full := summary + detail
	minWidth := utf8.RuneCountInString(summary) + min(utf8.RuneCountInString(detail), minText)
	switch {
	case width == 0:
		return full, nil
	case used+minWidth <= width:
		return truncate(full, width-used), nil
	}
	room := width - len(indent)
	below = wrap(full, room)
	if n := len(wrap(truncate(full, minWidth), room)); len(below) > n {
		below = below[:n]
		below[n-1] = truncate(below[n-1]+" …", max(room, utf8.RuneCountInString(below[n-1])))
	}
	return "", below
}

func orDash(text string) string {
	if text == "" {
		return "-"
	}
	return text
}
