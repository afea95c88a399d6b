package cli

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	migcontrollerv1 "github.com/mig-controller/mig-controller/gen/go/migcontroller/v1"
)

const (
	commandsHint = "migctl commands lists the commands that the controller keeps."
	statePrefix  = "COMMAND_STATE_"
)

type commandsCmd struct {
	VM    string   `name:"vm" placeholder:"VM" help:"Only commands for this VM."`
	State []string `placeholder:"STATE" help:"Only commands in one of these states: pending, delivered, succeeded, failed, timed_out, expired, cancelled."`
	Type  string   `placeholder:"TYPE" help:"Only commands of this type."`
	Limit int      `default:"50" placeholder:"N" help:"Show at most N commands (${default}); 0 means all."`
}

// Help returns the command's help text.
func (commandsCmd) Help() string {
	return examples(
		"",
		"migctl commands --vm vm-1",
		"migctl commands --state pending,delivered --limit 0",
		"migctl commands --type drain -o wide",
	)
}

// Run lists commands.
func (cmd commandsCmd) Run(ctx context.Context, in *invocation) error {
	states, err := parseStates(cmd.State)
	if err != nil {
		return err
	}
	if err := checkLimit(cmd.Limit); err != nil {
		return err
	}
	if err := in.dial(); err != nil {
		return err
	}
	req := &migcontrollerv1.ListCommandsRequest{VmId: cmd.VM, States: states, Type: cmd.Type}
	commands, more, err := listPages(cmd.Limit, func(size int32, token string) ([]*migcontrollerv1.CommandRecord, string, error) {
		req.PageSize, req.PageToken = size, token
		res, err := callRPC(ctx, in, 0, in.client.ListCommands, req)
		return res.GetCommands(), res.GetNextPageToken(), err
	})
	if err != nil {
		return err
	}
	if err := writeList(in, commands, in.commandTable(commands), "No command matches."); err != nil {
		return err
	}
	in.noteMore(more)
	return nil
}

func parseStates(names []string) ([]migcontrollerv1.CommandState, error) {
	states := make([]migcontrollerv1.CommandState, 0, len(names))
	for _, name := range names {
		upper := strings.ToUpper(strings.ReplaceAll(name, "-", "_"))
		number, known := migcontrollerv1.CommandState_value[statePrefix+strings.TrimPrefix(upper, statePrefix)]
		if !known || number == 0 {
			return nil, usage("--state: %q must be one of pending, delivered, succeeded, failed, timed_out, expired, cancelled", name)
		}
		states = append(states, migcontrollerv1.CommandState(number))
	}
	return states, nil
}

func (in *invocation) commandTable(commands []*migcontrollerv1.CommandRecord) table {
	t := table{columns: []column{
		{title: "COMMAND"},
		{title: "VM"},
		{title: "TYPE", drop: 3},
		{title: "STATE"},
		{title: "ATTEMPTS", wide: true},
		{title: "ACCEPTED", drop: 1},
		{title: "DELIVERED", wide: true},
		{title: "FINISHED", wide: true},
		{title: "EXPIRES", wide: true},
		{title: "REQUESTED BY", wide: true},
		{title: "REASON", drop: 2, text: true},
	}}
	for _, c := range commands {
		t.add(
			plain(c.GetCommand().GetId()), plain(c.GetVmId()), plain(c.GetCommand().GetType()), stateCell(c.GetState()),
			plain(strconv.Itoa(int(c.GetAttempts()))), in.when(c.GetAcceptedAt()), in.when(c.GetDeliveredAt()),
			in.when(c.GetFinishedAt()), in.when(c.GetExpiresAt()), plain(c.GetRequestedBy()), plain(reason(c)),
		)
	}
	return t
}

// reason returns why a command is in its state: the agent's message if it failed.
func reason(c *migcontrollerv1.CommandRecord) string {
	message := c.GetAck().GetMessage()
	if c.GetState() == migcontrollerv1.CommandState_COMMAND_STATE_FAILED && message != "" {
		return message
	}
	return c.GetReason()
}

func stateName(s migcontrollerv1.CommandState) string {
	return strings.TrimPrefix(s.String(), statePrefix)
}

func stateCell(s migcontrollerv1.CommandState) cell {
	c := plain(stateName(s))
	switch s {
	case migcontrollerv1.CommandState_COMMAND_STATE_SUCCEEDED:
		c.tone = good
	case migcontrollerv1.CommandState_COMMAND_STATE_FAILED,
		migcontrollerv1.CommandState_COMMAND_STATE_TIMED_OUT,
		migcontrollerv1.CommandState_COMMAND_STATE_EXPIRED:
		c.tone = bad
	case migcontrollerv1.CommandState_COMMAND_STATE_PENDING:
		c.tone = waiting
	case migcontrollerv1.CommandState_COMMAND_STATE_DELIVERED:
		c.tone = busy
	case migcontrollerv1.CommandState_COMMAND_STATE_CANCELLED:
		c.tone = faint
	case migcontrollerv1.CommandState_COMMAND_STATE_UNSPECIFIED:
	}
	return c
}

// ended reports whether the command is in a state that never changes.
func ended(c *migcontrollerv1.CommandRecord) bool {
	return c.GetState() != migcontrollerv1.CommandState_COMMAND_STATE_PENDING &&
		c.GetState() != migcontrollerv1.CommandState_COMMAND_STATE_DELIVERED
}

func succeeded(c *migcontrollerv1.CommandRecord) bool {
	return c.GetState() == migcontrollerv1.CommandState_COMMAND_STATE_SUCCEEDED
}

type commandCmd struct {
	ID string `arg:"" name:"id" help:"The command's id."`
}

// Help returns the command's help text.
func (commandCmd) Help() string {
	return examples("Shows the command's parameters, its state and why, and the agent's ack.", "migctl command ctl-0a32e5517cc3edcf")
}

// Run shows one command.
func (cmd commandCmd) Run(ctx context.Context, in *invocation) error {
	if err := in.dial(); err != nil {
		return err
	}
	res, err := callRPC(ctx, in, 0, in.client.GetCommand, &migcontrollerv1.GetCommandRequest{CommandId: cmd.ID})
	if err != nil {
		return lookupError{err, commandsHint}
	}
	return in.writeRecord(res.GetCommand(), in.commandFields(res.GetCommand()))
}

func (in *invocation) commandFields(c *migcontrollerv1.CommandRecord) table {
	t := fields()
	t.field("Command", plain(c.GetCommand().GetId()))
	t.field("VM", plain(c.GetVmId()))
	t.field("Type", plain(c.GetCommand().GetType()))
	for _, param := range params(c) {
		t.field("  parameter", plain(param))
	}
	t.field("State", stateCell(c.GetState()))
	t.field("Reason", plain(c.GetReason()))
	if waiting := c.GetWaiting(); waiting != nil {
		t.field("  since", in.whenBoth(waiting.GetSince()))
	}
	t.field("Attempts", attempts(c))
	if name := c.GetRequestedBy(); name != "" {
		t.field("Requested by", plain(name))
	}
	if name := c.GetCancelledBy(); name != "" {
		t.field("Cancelled by", plain(name))
	}
	t.field("Accepted", in.whenBoth(c.GetAcceptedAt()))
	t.field("Delivered", in.whenBoth(c.GetDeliveredAt()))
	t.field("Acked", in.whenBoth(c.GetAckedAt()))
	if ack := c.GetAck(); ack != nil {
		t.field("  success", plain(strconv.FormatBool(ack.GetSuccess())))
		t.field("  message", plain(ack.GetMessage()))
		for _, name := range slices.Sorted(maps.Keys(ack.GetResult())) {
			t.field("  result", plain(name+"="+ack.GetResult()[name]))
		}
	}
	t.field("Finished", in.whenBoth(c.GetFinishedAt()))
	t.field("Expires", in.whenBoth(c.GetExpiresAt()))
	t.field("Ack timeout", plain(formatDuration(c.GetAckTimeout().AsDuration())))
	if id := c.GetTraceId(); id != "" {
		t.field("Trace", plain(id))
	}
	return t
}

// attempts shows the number of deliveries and the limit, which older controllers do not
// report.
func attempts(c *migcontrollerv1.CommandRecord) cell {
	if c.GetMaxDeliveries() == 0 {
		return plain(strconv.Itoa(int(c.GetAttempts())))
	}
	return plain(fmt.Sprintf("%d of %d", c.GetAttempts(), c.GetMaxDeliveries()))
}

// params formats the parameters as on the command line.
func params(c *migcontrollerv1.CommandRecord) []string {
	var lines []string
	for _, name := range slices.Sorted(maps.Keys(c.GetCommand().GetStringParams())) {
		lines = append(lines, name+"="+c.GetCommand().GetStringParams()[name])
	}
	for _, name := range slices.Sorted(maps.Keys(c.GetCommand().GetIntParams())) {
		lines = append(lines, fmt.Sprintf("%s=%d", name, c.GetCommand().GetIntParams()[name]))
	}
	for _, name := range slices.Sorted(maps.Keys(c.GetCommand().GetBoolParams())) {
		lines = append(lines, fmt.Sprintf("%s=%t", name, c.GetCommand().GetBoolParams()[name]))
	}
	if list := c.GetCommand().GetStringArrayParams(); len(list) > 0 {
		lines = append(lines, strings.Join(list, ","))
	}
	return lines
}

type cancelCmd struct {
	IDs []string `arg:"" name:"id" help:"The ids of the commands."`
	reasonFlag
}

// Help returns the command's help text.
func (cancelCmd) Help() string {
	return examples(
		"A command that was already delivered is cancelled too, but its agent may have acted on it.",
		"migctl cancel ctl-0a32e5517cc3edcf",
	)
}

// Run cancels commands. It continues after a command that cannot be cancelled.
func (cmd cancelCmd) Run(ctx context.Context, in *invocation) error {
	if err := in.dial(); err != nil {
		return err
	}
	var cancelled []*migcontrollerv1.CommandRecord
	var first error
	emptyMessage := "Nothing was cancelled."
	for _, id := range cmd.IDs {
		res, err := callRPC(ctx, in, 0, in.client.CancelCommand, &migcontrollerv1.CancelCommandRequest{CommandId: id, Reason: cmd.Reason})
		if err == nil {
			cancelled = append(cancelled, res.GetCommand())
			continue
		}
		if in.uncertain(err) {
			emptyMessage = "No command is known to have been cancelled."
		}
		first = cmp.Or(first, err)
		in.reportNotCancelled(ctx, id, len(cmd.IDs) > 1, err)
		if ctx.Err() != nil {
			break
		}
	}
	if len(cmd.IDs) > 1 || first == nil {
		if err := writeList(in, cancelled, in.commandTable(cancelled), emptyMessage); err != nil {
			return err
		}
	}
	if first != nil {
		return alreadyReported(in.explain(first).code)
	}
	return nil
}

// reportNotCancelled reports why a command was not cancelled, or that it may have been.
func (in *invocation) reportNotCancelled(ctx context.Context, id string, many bool, err error) {
	f := *in.explain(lookupError{err, commandsHint})
	if ctx.Err() != nil {
		in.freshLine()
		f = failure{code: exitInterrupted, text: "interrupted"}
	}
	if in.uncertain(err) {
		f.text += fmt.Sprintf("; %s may have been cancelled", id)
		f.hint = fmt.Sprintf("migctl command %s shows whether it was.", id)
	}
	if many {
		in.show(id, &f)
	} else {
		in.show("", &f)
	}
}

// reportFailure reports the error of one of several objects.
func (in *invocation) reportFailure(name string, err error) {
	in.show(name, in.explain(err))
}
