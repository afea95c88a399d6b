package cli

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/mig-controller/mig-controller/gen/go/migclient"
	migcontrollerv1 "github.com/mig-controller/mig-controller/gen/go/migcontroller/v1"
	"github.com/mig-controller/mig-controller/gen/go/miglet/commands"
)

const (
	// waitStep is the longest wait of one call. It is below the idle timeouts of proxies,
	// and lets migctl detect a restart of the controller.
	waitStep = 20 * time.Second
	// retryPause is the delay between retries once a command has been accepted.
	retryPause = time.Second
)

// reasonFlag is the flag of every command that changes something.
type reasonFlag struct {
	Reason string `placeholder:"TEXT" help:"Why, for the audit: at most 1000 characters."`
}

// parameters are the flags that describe a command to send.
type parameters struct {
	Param      []string `sep:"none" placeholder:"NAME=TEXT" help:"A text parameter; can be repeated."`
	Int        []string `sep:"none" placeholder:"NAME=N" help:"An integer parameter; can be repeated."`
	Bool       []string `sep:"none" placeholder:"NAME=BOOL" help:"A parameter that is true or false; can be repeated."`
	List       []string `placeholder:"A,B" help:"The list parameter."`
	TTL        duration `name:"ttl" placeholder:"TIME" help:"How long the command may wait for delivery. Default: the controller's, 1h unless configured otherwise."`
	AckTimeout duration `placeholder:"TIME" help:"How long the agent may take to ack. Default: the controller's, 30s unless configured otherwise."`

	AnyType bool `help:"Send the type even if it looks misspelt."`
	reasonFlag

	MaxDeliveries int32 `placeholder:"N" help:"Deliver the command at most N times. Default: the controller's, 5 unless configured otherwise."`
}

// request returns the request without a VM and command id.
func (p parameters) request(kind string) (*migcontrollerv1.SendCommandRequest, error) {
	if err := checkType(kind); err != nil && !p.AnyType {
		return nil, err
	}
	command := &commands.Command{Type: kind, StringArrayParams: p.List}
	var err error
	if command.StringParams, err = pairs("--param", p.Param, "a text", func(s string) (string, error) { return s, nil }); err != nil {
		return nil, err
	}
	number := func(s string) (int64, error) { return strconv.ParseInt(s, 10, 64) }
	if command.IntParams, err = pairs("--int", p.Int, "a 64-bit integer", number); err != nil {
		return nil, err
	}
	if command.BoolParams, err = pairs("--bool", p.Bool, "true or false", strconv.ParseBool); err != nil {
		return nil, err
	}
	req := &migcontrollerv1.SendCommandRequest{Command: command, MaxDeliveries: p.MaxDeliveries, Reason: p.Reason}
	if p.TTL > 0 {
		req.Ttl = durationpb.New(time.Duration(p.TTL))
	}
	if p.AckTimeout > 0 {
		req.AckTimeout = durationpb.New(time.Duration(p.AckTimeout))
	}
	return req, nil
}

// pairs parses NAME=VALUE arguments. rule describes valid values for error messages.
func pairs[V any](flag string, args []string, rule string, parse func(string) (V, error)) (map[string]V, error) {
	out := make(map[string]V, len(args))
	for _, arg := range args {
		name, text, found := strings.Cut(arg, "=")
		if !found || name == "" {
			return nil, usage("%s: %q must have the form NAME=VALUE", flag, arg)
		}
		if _, twice := out[name]; twice {
			return nil, usage("%s: %s is given twice", flag, name)
		}
		value, err := parse(text)
		if err != nil {
			return nil, usage("%s: %s must be %s", flag, name, rule)
		}
		out[name] = value
	}
	return out, nil
}

type sendCmd struct {
	VM   string `arg:"" name:"vm" help:"The VM's id."`
	Type string `arg:"" help:"The type of command: drain, shutdown, update_config, set_log_level, register_runner, or another that the agent supports."`
	parameters
	ID   string   `name:"id" placeholder:"ID" help:"The command's id. Sending again with the same id is safe. Default: a new random id."`
	Wait duration `placeholder:"TIME" help:"Wait up to this long for the command to end. Default: do not wait."`
}

// Help returns the command's help text.
func (sendCmd) Help() string {
	return examples(
		"Once migctl has answered, the command is on disk and will be delivered unless it is cancelled or its --ttl "+
			"passes. A VM that is offline gets it when it reconnects.",
		"migctl send vm-1 drain",
		"migctl send vm-1 set_log_level --param level=debug --wait 30s",
	)
}

// Run sends a command.
func (cmd sendCmd) Run(ctx context.Context, in *invocation) error {
	req, err := cmd.request(cmd.Type)
	if err != nil {
		return err
	}
	if err := in.dial(); err != nil {
		return err
	}
	id := cmd.ID
	if id == "" {
		id = in.newID()
	}
	req.VmId, req.Command.Id = cmd.VM, id
	if cmd.Wait > 0 && in.stderrTTY {
		fmt.Fprintf(in.stderr, "Sending %s; waiting up to %s for it to end.\n", printable(id), formatDuration(time.Duration(cmd.Wait)))
	}
	in.warn(ctx, cmd.Type, []string{cmd.VM})
	record, err := in.send(ctx, req, time.Duration(cmd.Wait))
	switch {
	case ctx.Err() != nil:
		in.freshLine()
		in.reportInterrupted(record, id)
		return ctx.Err()
	case err != nil && record != nil:
		f := *in.explain(err)
		f.hint = fmt.Sprintf("%s was accepted and is still in progress.\n%s", id, checkHint(id))
		return &f
	case in.uncertain(err):
		f := *in.explain(err)
		f.hint += fmt.Sprintf("\n  It may have been accepted: migctl command %s shows whether it was. To retry\n  without sending it twice, add --id %s.", id, id)
		return &f
	case err != nil:
		return err
	}
	if err := in.writeRecord(record, in.commandFields(record)); err != nil {
		return err
	}
	return in.outcome(record, cmd.Wait > 0)
}

// reportInterrupted reports after an interrupt that a command was accepted, if it has a
// record, or that it may have been.
func (in *invocation) reportInterrupted(record *migcontrollerv1.CommandRecord, id string) {
	f := &failure{code: exitInterrupted, text: fmt.Sprintf("interrupted; %s may have been accepted", id), hint: checkHint(id)}
	if record != nil {
		f.text = fmt.Sprintf("interrupted; %s was accepted and is still in progress", id)
	}
	in.show("", f)
}

// checkHint returns the hint to check or cancel a command.
func checkHint(id string) string {
	return fmt.Sprintf("To check it: migctl command %s; to cancel it: migctl cancel %s", id, id)
}

// uncertain reports whether a mutating request may have been executed despite this error:
// it may have reached the controller, and no response says that it was rejected.
func (in *invocation) uncertain(err error) bool {
	if err == nil {
		return false
	}
	if errors.Is(err, context.Canceled) {
		return true
	}
	if dial, ok := errors.AsType[*net.OpError](err); ok && dial.Op == "dial" {
		return false
	}
	code := connect.CodeOf(err)
	if code == connect.CodeUnimplemented || code == connect.CodeNotFound {
		return false // never executed
	}
	return in.explain(err).code == exitUnavailable || code == connect.CodeInternal || code == connect.CodeUnknown
}

// outcome returns an error if a command was waited for and did not succeed.
func (in *invocation) outcome(c *migcontrollerv1.CommandRecord, waited bool) error {
	switch {
	case !waited || succeeded(c):
		return nil
	case !ended(c):
		id := c.GetCommand().GetId()
		return &failure{
			code: exitNotEnded, text: fmt.Sprintf("timed out waiting for %s, which is still %s", id, stateName(c.GetState())),
			hint: "It is still in progress.\n" + checkHint(id),
		}
	default:
		text := fmt.Sprintf("%s ended as %s", c.GetCommand().GetId(), stateName(c.GetState()))
		if why := reason(c); why != "" {
			text += ": " + why
		}
		return &failure{code: exitFailed, text: text}
	}
}

// send sends a command and waits for its end. Repeated requests with the same id are
// idempotent, so once the command has been accepted, the wait survives a restart of the
// controller. The record is nil only if the command is not known to have been accepted.
// An error with a record means that the wait ended before the command did.
func (in *invocation) send(
	ctx context.Context, req *migcontrollerv1.SendCommandRequest, wait time.Duration,
) (*migcontrollerv1.CommandRecord, error) {
	until := in.now().Add(wait)
	var record *migcontrollerv1.CommandRecord
	for {
		step := min(until.Sub(in.now()), waitStep)
		if record == nil {
			step = 0 // The first call reports acceptance without waiting.
		}
		req.Wait = nil
		if step > 0 {
			req.Wait = durationpb.New(step)
		}
		res, err := callRPC(ctx, in, step, in.client.SendCommand, req)
		switch {
		case err == nil:
			record = res.GetCommand()
		case record == nil || ctx.Err() != nil || !migclient.Retryable(err):
			return record, err
		default:
			if err := in.pause(ctx, retryPause); err != nil {
				return record, err
			}
		}
		if ended(record) || !in.now().Before(until) {
			return record, nil
		}
	}
}
