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

// Help says what a watch shows.
func (watchCmd) Help() string {
	return examples(
		"Shows changes to VMs and commands, and new events, until interrupted. When the connection breaks, "+
			"it reconnects and misses nothing. A heartbeat that changes nothing else is not shown.",
		"migctl watch",
		"migctl watch --vm vm-1",
	)
}

// Run shows changes until it is interrupted, which is not a failure.
func (cmd watchCmd) Run(ctx context.Context, in *invocation) error {
	if err := in.dial(); err != nil {
		return err
	}
	cursor := cmd.Cursor
	show := func(change *migcontrollerv1.WatchFleetResponse) error {
		cursor = change.GetCursor()
		return in.showChange(change)
	}
	err := in.watch(ctx, cmd.Cursor, cmd.VM, show, func(begin string) error { return cmd.again(ctx, in, begin, show) })
	if ctx.Err() != nil {
		in.freshLine()
	}
	if cursor != cmd.Cursor && !in.structured() {
		fmt.Fprintf(in.stderr, "To continue from here: migctl watch --cursor %s\n", printable(cursor))
	}
	return err
}

// again shows the current state of the VMs, as if each had just changed: it includes the
// changes that were missed.
func (cmd watchCmd) again(
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
// When the stream breaks it resumes from the last cursor; when the changes after that are
// no longer stored, it starts over, and calls again with the first new cursor. It fails
// if the first attempt does, if the controller rejects a later one, and if show or again
// fails; the end of ctx is not a failure.
func (in *invocation) watch(
	ctx context.Context, cursor, vm string, show func(*migcontrollerv1.WatchFleetResponse) error, again func(cursor string) error,
) error {
	watched, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	// The first answer has the timeout of any other call.
	late := connect.NewError(connect.CodeDeadlineExceeded, context.DeadlineExceeded)
	first := time.AfterFunc(time.Duration(in.Timeout), func() { cancel(late) })
	defer first.Stop()
	w := watching{in: in, show: show, again: again, first: first}
	for {
		err := w.follow(watched, &migcontrollerv1.WatchFleetRequest{Cursor: cursor, VmId: vm})
		switch {
		case ctx.Err() != nil:
			return nil // interrupted
		case w.begun && !w.failed && !w.lost && expired(err):
			fmt.Fprintln(in.stderr, "The changes in between are no longer stored; listing everything again.")
			cursor, w.lost = "", true
		default:
			return err
		}
	}
}

// watching is the state of a watch across all its streams.
type watching struct {
	in    *invocation
	show  func(*migcontrollerv1.WatchFleetResponse) error
	again func(cursor string) error
	first *time.Timer // runs until the first answer
	// begun is set once there was an answer, away while the controller is unreachable,
	// lost while changes are missing, and failed when show or again failed.
	begun, away, lost, failed bool
}

// follow handles answers until there is an error, which it returns.
func (w *watching) follow(ctx context.Context, request *migcontrollerv1.WatchFleetRequest) error {
	follower := migclient.Follower{Admin: w.in.client, Broken: w.broken, Silence: w.in.silence, Pause: w.in.pause}
	for change, err := range follower.Follow(ctx, request) {
		if err != nil {
			return err
		}
		if err := w.answer(change); err != nil {
			w.failed = true
			return err
		}
	}
	return nil
}

// broken reports that the connection is lost. Before the first answer it gives up.
func (w *watching) broken(err error) error {
	if !w.begun {
		return err
	}
	if !w.away {
		fmt.Fprintln(w.in.stderr, "Lost the connection to the controller; reconnecting.")
	}
	w.away = true
	return nil
}

// answer handles one message of a stream.
func (w *watching) answer(change *migcontrollerv1.WatchFleetResponse) error {
	w.first.Stop()
	if !w.begun || w.away {
		w.in.noteWatch(w.begun, w.lost)
	}
	lost := w.lost
	w.begun, w.away, w.lost = true, false, false
	if lost {
		if err := w.again(change.GetCursor()); err != nil {
			return err
		}
	}
	return w.show(change)
}

// expired reports whether the changes after a cursor are no longer stored.
func expired(err error) bool {
	return detailOf(err).GetReason() == migcontrollerv1.ErrorReason_ERROR_REASON_CURSOR_EXPIRED
}

// noteWatch reports that there is a stream: the first, or a new one.
func (in *invocation) noteWatch(again, lost bool) {
	switch {
	case lost:
		fmt.Fprintln(in.stderr, "Reconnected.")
	case again:
		fmt.Fprintln(in.stderr, "Reconnected; nothing was missed.")
	case in.reports:
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

// writeChange shows one change of an endless list. The columns have fixed widths, because
// the rows to come are unknown. Nothing of fact is cut: it has the ids.
// A narrow terminal has no room for the date, and shows a fact and detail that are too
// long for the rest of the line below it. Of detail it shows usefulText at least, and what
// else has room in the same lines.
func (in *invocation) writeChange(at *timestamppb.Timestamp, vm string, what cell, fact, detail string) {
	const vmWidth, whatWidth, narrow = 16, 17, 100
	width := in.width()
	if in.Output == outWide {
		width = 0
	}
	clock := clockTime(at)
	if width > 0 && width < narrow {
		clock = at.AsTime().Format("15:04:05Z")
	}
	label := printable(what.text)
	line := fmt.Sprintf("%s  %-*s  ", clock, vmWidth, printable(vm))
	pad := max(whatWidth-utf8.RuneCountInString(label), 0)
	taken := utf8.RuneCountInString(line) + utf8.RuneCountInString(label) + pad + len(gap)
	rest, below := changeText(printable(fact), printable(detail), width, taken)
	rest = strings.TrimRight(strings.Repeat(" ", pad)+gap+rest, " ")
	fmt.Fprintf(in.stdout, "%s%s%s\n", line, paint(label, what.tone, in.colour()), rest)
	for _, line := range below {
		fmt.Fprintln(in.stdout, indent+line)
	}
}

// changeText returns what of a change stands in the rest of its line, of which so much
// is taken, and what stands below. A width of 0 has room for everything.
func changeText(fact, detail string, width, taken int) (rest string, below []string) {
	whole := fact + detail
	least := utf8.RuneCountInString(fact) + min(utf8.RuneCountInString(detail), usefulText)
	switch {
	case width == 0:
		return whole, nil
	case taken+least <= width:
		return shorten(whole, width-taken), nil
	}
	room := width - len(indent)
	below = wrap(whole, room)
	if n := len(wrap(shorten(whole, least), room)); len(below) > n {
		below = below[:n]
		below[n-1] = shorten(below[n-1]+" …", max(room, utf8.RuneCountInString(below[n-1])))
	}
	return "", below
}

func orDash(text string) string {
	if text == "" {
		return "-"
	}
	return text
}
