package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/proto"

	migcontrollerv1 "github.com/mig-controller/mig-controller/gen/go/migcontroller/v1"
)

// broadcastLimit is how many commands may be sent at a time.
const broadcastLimit = 64

type broadcastCmd struct {
	Type string `arg:"" help:"The type of command: drain, shutdown, update_config, set_log_level, or another that the agents support."`
	vmFilter
	parameters
	Wait     span `placeholder:"TIME" help:"Wait up to this long for each command to end. Default: do not wait."`
	Parallel int  `default:"8" placeholder:"N" help:"Send to N VMs at a time, 1 to 64 (${default})."`
	Yes      bool `short:"y" help:"Send without asking for confirmation."`
	DryRun   bool `help:"Send nothing; list the VMs that would get the command."`
}

// Help says what a broadcast does.
func (broadcastCmd) Help() string {
	return examples(
		"Each VM that matches now gets a command of its own. Without filters that is the whole fleet, including "+
			"VMs that are offline. On a terminal migctl asks for confirmation; elsewhere --yes is required.",
		"migctl broadcast drain --pool builders --connected --dry-run",
		"migctl broadcast drain --pool builders --wait 30s --yes",
	)
}

// Run sends a command to every VM that matches.
func (cmd broadcastCmd) Run(ctx context.Context, in *invocation) error {
	req, err := cmd.request(cmd.Type)
	if err != nil {
		return err
	}
	if cmd.Parallel < 1 || cmd.Parallel > broadcastLimit {
		return usage("--parallel must be 1 to %d", broadcastLimit)
	}
	if err := in.dial(); err != nil {
		return err
	}
	vms, _, err := cmd.list(ctx, in, 0)
	switch {
	case err != nil:
		return err
	case len(vms) == 0:
		return &failure{code: exitNotFound, text: "no VM matches; nothing was sent", hint: "migctl vms has the same filters, and shows which VMs match."}
	case cmd.DryRun:
		return cmd.preview(in, vms)
	}
	cmd.warn(in, vms)
	if err := cmd.confirm(ctx, in, len(vms)); err != nil {
		return err
	}
	ids := make([]string, len(vms))
	for i, v := range vms {
		ids[i] = v.GetVmId()
	}
	return in.sendAll(ctx, req, ids, time.Duration(cmd.Wait), cmd.Parallel)
}

func (cmd broadcastCmd) preview(in *invocation, vms []*migcontrollerv1.VM) error {
	if err := writeList(in, vms, in.vmTable(vms), noVM); err != nil {
		return err
	}
	fmt.Fprintf(in.stderr, "%s would be sent to %s. Nothing was sent.\n", printable(cmd.Type), vmCount(len(vms)))
	return nil
}

// warn reports how many of the VMs will probably not read the command.
func (cmd broadcastCmd) warn(in *invocation, vms []*migcontrollerv1.VM) {
	n := 0
	for _, v := range vms {
		if readsNoCommands(v) {
			n++
		}
	}
	if n > 0 && !in.structured() {
		fmt.Fprintf(in.stderr, "Warning: the runners of %s are registered, and their agents have acked nothing since.\n"+
			"  Such agents usually read no commands: expect %s to end as TIMED_OUT there.\n", vmCount(n), printable(cmd.Type))
	}
}

func vmCount(n int) string {
	if n == 1 {
		return "1 VM"
	}
	return fmt.Sprintf("%d VMs", n)
}

// confirm asks for confirmation. If stdin is not a terminal, --yes is required.
func (cmd broadcastCmd) confirm(ctx context.Context, in *invocation, n int) error {
	if cmd.Yes {
		return nil
	}
	if !in.asks {
		return &failure{
			code: exitUsage, text: fmt.Sprintf("%s would be sent to %s, which needs --yes because stdin is not a terminal", cmd.Type, vmCount(n)),
			hint: "Nothing was sent. --dry-run lists the VMs.",
		}
	}
	whom := vmCount(n)
	if cmd.vmFilter == (vmFilter{}) {
		whom += ", the whole fleet,"
	}
	fmt.Fprintf(in.stderr, "Send %s to %s at %s? [y/N] ", printable(cmd.Type), whom, in.address)
	// A read from a terminal cannot be interrupted: after a signal it is abandoned.
	answer := make(chan string, 1)
	go func() {
		line, _ := bufio.NewReader(in.stdin).ReadString('\n')
		answer <- strings.ToLower(strings.TrimSpace(line))
	}()
	select {
	case got := <-answer:
		if got == "y" || got == "yes" {
			return nil
		}
		return &failure{code: exitFailed, text: "nothing was sent"}
	case <-ctx.Done():
		in.freshLine()
		return ctx.Err()
	}
}

// sent is the outcome for one VM. A command that was accepted has a record, with an
// error if waiting for its end failed.
type sent struct {
	vm     string
	record *migcontrollerv1.CommandRecord
	err    error
	// id is that of a command that may or may not have been accepted; otherwise
	// empty.
	id string
}

// sendOne sends the command to one VM, unless ctx has ended.
func (in *invocation) sendOne(ctx context.Context, req *migcontrollerv1.SendCommandRequest, vm string, wait time.Duration) sent {
	own := proto.CloneOf(req)
	own.VmId, own.Command.Id = vm, in.newID()
	if err := ctx.Err(); err != nil {
		return sent{vm: vm, err: err}
	}
	record, err := in.send(ctx, own, wait)
	if record == nil && in.uncertain(err) {
		return sent{vm: vm, err: err, id: own.GetCommand().GetId()}
	}
	return sent{vm: vm, record: record, err: err}
}

// sendAll sends the same command to each VM, parallel at a time, and shows its progress
// and then the outcome for each. Once ctx has ended it sends no more.
func (in *invocation) sendAll(
	ctx context.Context, req *migcontrollerv1.SendCommandRequest, vms []string, wait time.Duration, parallel int,
) error {
	results := make([]sent, len(vms))
	done := make(chan int)
	go func() {
		defer close(done)
		var senders errgroup.Group
		senders.SetLimit(parallel)
		for i, vm := range vms {
			senders.Go(func() error {
				results[i] = in.sendOne(ctx, req, vm, wait)
				done <- i
				return nil
			})
		}
		_ = senders.Wait() // each result has its error
	}()
	progress := progress{in: in, total: len(vms)}
	for i := range done {
		progress.step(results[i], wait > 0)
	}
	progress.end()
	return in.summarise(ctx, results, wait > 0)
}

// progress shows the progress of a broadcast on stderr: on a terminal in one line that
// changes, otherwise its failures only.
type progress struct {
	in                  *invocation
	total, done, failed int
}

func (p *progress) step(s sent, waited bool) {
	p.done++
	if s.err != nil || waited && !succeeded(s.record) {
		p.failed++
	}
	switch {
	case s.id != "":
		p.wipe()
		p.in.reportUncertain(s)
	case s.err != nil && !errors.Is(s.err, context.Canceled):
		p.wipe()
		p.in.reportFailure(s.vm, s.err)
	}
	if p.in.reports {
		fmt.Fprintf(p.in.stderr, "\r%d of %d, %d failed", p.done, p.total, p.failed)
	}
}

func (p *progress) wipe() {
	if p.in.reports {
		fmt.Fprint(p.in.stderr, "\r\x1b[K")
	}
}

// end clears the line, including a ^C in it.
func (p *progress) end() {
	p.wipe()
	p.in.fresh = true
}

// reportUncertain reports a command that may or may not have been accepted.
func (in *invocation) reportUncertain(s sent) {
	f := *in.explain(s.err)
	if errors.Is(s.err, context.Canceled) {
		f = failure{code: exitInterrupted, text: "interrupted"}
	}
	f.text += fmt.Sprintf("; %s may have been accepted", s.id)
	f.hint = lookHint(s.id)
	in.show(s.vm, &f)
}

// tally counts the outcomes of a broadcast.
type tally struct {
	records []*migcontrollerv1.CommandRecord
	// refusal is the last error of a command that was not accepted, or may not have been.
	refusal                                error
	refused, uncertain, unsuccessful, open int
}

func tallyOf(results []sent, waited bool) (t tally) {
	for _, s := range results {
		if s.record == nil {
			t.refused++
			t.refusal = s.err
			if s.id != "" {
				t.uncertain++
			}
			continue
		}
		t.records = append(t.records, s.record)
		switch {
		case waited && !ended(s.record):
			t.open++
		case waited && !succeeded(s.record):
			t.unsuccessful++
		}
	}
	return t
}

// summarise shows the commands that were accepted, and the counts on stderr.
func (in *invocation) summarise(ctx context.Context, results []sent, waited bool) error {
	t := tallyOf(results, waited)
	none := "Nothing was sent."
	if t.uncertain > 0 {
		none = "No command is known to have been accepted."
	}
	if err := writeList(in, t.records, in.commandTable(t.records), none); err != nil {
		return err
	}
	fmt.Fprintf(in.stderr, "%d of %d accepted", len(t.records), len(results))
	if t.uncertain > 0 {
		fmt.Fprintf(in.stderr, ", %d unknown", t.uncertain)
	}
	if waited {
		succeeded := len(t.records) - t.unsuccessful - t.open
		fmt.Fprintf(in.stderr, ", %d succeeded, %d did not succeed, %d not finished", succeeded, t.unsuccessful, t.open)
	}
	fmt.Fprintln(in.stderr, ".")
	if t.uncertain > 0 && !in.structured() {
		fmt.Fprintln(in.stderr, "  migctl command ID shows whether a command was accepted; migctl cancel ID cancels it.")
	}
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case t.refused == len(results):
		return silent(in.explain(t.refusal).code)
	case t.refused > 0 || t.unsuccessful > 0:
		return silent(exitFailed)
	case t.open > 0:
		return silent(exitNotEnded)
	default:
		return nil
	}
}

type drainCmd struct {
	VMs  []string `arg:"" name:"vm" help:"The ids of the VMs."`
	Wait span     `default:"1m" placeholder:"TIME" help:"Wait up to this long for each agent's ack (${default})."`
	TTL  span     `name:"ttl" placeholder:"TIME" help:"How long the command may wait for delivery. Default: the controller's, 1h unless configured otherwise."`
}

// Help says what draining does.
func (drainCmd) Help() string {
	return examples(
		"Sends the command drain to each VM. SUCCEEDED means that the agent has accepted it; a running job continues "+
			"to its end, which migctl watch --vm VM shows.",
		"migctl drain vm-1 vm-2",
		"migctl drain vm-1 --wait 5m",
	)
}

// Run drains VMs.
func (cmd drainCmd) Run(ctx context.Context, in *invocation) error {
	req, err := parameters{TTL: cmd.TTL}.request("drain")
	if err != nil {
		return err
	}
	if err := in.dial(); err != nil {
		return err
	}
	in.warn(ctx, "drain", cmd.VMs)
	return in.sendAll(ctx, req, cmd.VMs, time.Duration(cmd.Wait), 8)
}
