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

// broadcastLimit is the maximum of --parallel.
const broadcastLimit = 64

type broadcastCmd struct {
	Type string `arg:"" help:"The type of command: drain, shutdown, update_config, set_log_level, or another that the agents support."`
	vmFilter
	parameters
	Wait     duration `placeholder:"TIME" help:"Wait up to this long for each command to end. Default: do not wait."`
	Parallel int      `default:"8" placeholder:"N" help:"Send to N VMs at a time, 1 to 64 (${default})."`
	Yes      bool     `short:"y" help:"Send without asking for confirmation."`
	DryRun   bool     `help:"Send nothing; list the VMs that would get the command."`
}

// Help returns the command's help text.
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
	if !in.stdinTTY {
		return &failure{
			code: exitUsage, text: fmt.Sprintf("%s would be sent to %s, which needs --yes because stdin is not a terminal", cmd.Type, vmCount(n)),
			hint: "Nothing was sent. --dry-run lists the VMs.",
		}
	}
	recipients := vmCount(n)
	if cmd.vmFilter == (vmFilter{}) {
		recipients += ", the whole fleet,"
	}
	fmt.Fprintf(in.stderr, "Send %s to %s at %s? [y/N] ", printable(cmd.Type), recipients, in.address)
	// A read from a terminal cannot be interrupted, so a signal abandons it.
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

// sendResult is the outcome for one VM. An accepted command has a record, and also an error
// if waiting for its end failed.
type sendResult struct {
	vm     string
	record *migcontrollerv1.CommandRecord
	err    error
	// id is set only if it is unknown whether the command was accepted.
	id string
}

// sendOne sends the command to one VM, unless ctx is done.
func (in *invocation) sendOne(ctx context.Context, req *migcontrollerv1.SendCommandRequest, vm string, wait time.Duration) sendResult {
	vmReq := proto.CloneOf(req)
	vmReq.VmId, vmReq.Command.Id = vm, in.newID()
	if err := ctx.Err(); err != nil {
		return sendResult{vm: vm, err: err}
	}
	record, err := in.send(ctx, vmReq, wait)
	if record == nil && in.uncertain(err) {
		return sendResult{vm: vm, err: err, id: vmReq.GetCommand().GetId()}
	}
	return sendResult{vm: vm, record: record, err: err}
}

// sendAll sends the same command to each VM with the given parallelism, and prints progress
// and then a summary. It sends no more commands once ctx is done.
func (in *invocation) sendAll(
	ctx context.Context, req *migcontrollerv1.SendCommandRequest, vms []string, wait time.Duration, parallel int,
) error {
	results := make([]sendResult, len(vms))
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
		_ = senders.Wait() // errors are in results
	}()
	progress := progress{in: in, total: len(vms)}
	for i := range done {
		progress.step(results[i], wait > 0)
	}
	progress.end()
	return in.summarise(ctx, results, wait > 0)
}

// progress reports the failures of a broadcast on stderr, and on a terminal also updates a
// progress line.
type progress struct {
	in                  *invocation
	total, done, failed int
}

func (p *progress) step(s sendResult, waited bool) {
	p.done++
	if s.err != nil || waited && !succeeded(s.record) {
		p.failed++
	}
	switch {
	case s.id != "":
		p.clearLine()
		p.in.reportUncertain(s)
	case s.err != nil && !errors.Is(s.err, context.Canceled):
		p.clearLine()
		p.in.reportFailure(s.vm, s.err)
	}
	if p.in.stderrTTY {
		fmt.Fprintf(p.in.stderr, "\r%d of %d, %d failed", p.done, p.total, p.failed)
	}
}

func (p *progress) clearLine() {
	if p.in.stderrTTY {
		fmt.Fprint(p.in.stderr, "\r\x1b[K")
	}
}

// end clears the progress line, including an echoed ^C.
func (p *progress) end() {
	p.clearLine()
	p.in.atLineStart = true
}

// reportUncertain reports a command that may or may not have been accepted.
func (in *invocation) reportUncertain(s sendResult) {
	f := *in.explain(s.err)
	if errors.Is(s.err, context.Canceled) {
		f = failure{code: exitInterrupted, text: "interrupted"}
	}
	f.text += fmt.Sprintf("; %s may have been accepted", s.id)
	f.hint = checkHint(s.id)
	in.show(s.vm, &f)
}

// tally counts the outcomes of a broadcast.
type tally struct {
	records []*migcontrollerv1.CommandRecord
	// lastErr is the last error of a command that is not known to have been accepted.
	lastErr                                          error
	notAccepted, uncertain, unsuccessful, unfinished int
}

func tallyOf(results []sendResult, waited bool) (t tally) {
	for _, s := range results {
		if s.record == nil {
			t.notAccepted++
			t.lastErr = s.err
			if s.id != "" {
				t.uncertain++
			}
			continue
		}
		t.records = append(t.records, s.record)
		switch {
		case waited && !ended(s.record):
			t.unfinished++
		case waited && !succeeded(s.record):
			t.unsuccessful++
		}
	}
	return t
}

// summarise prints the accepted commands, and counts on stderr.
func (in *invocation) summarise(ctx context.Context, results []sendResult, waited bool) error {
	t := tallyOf(results, waited)
	emptyMessage := "Nothing was sent."
	if t.uncertain > 0 {
		emptyMessage = "No command is known to have been accepted."
	}
	if err := writeList(in, t.records, in.commandTable(t.records), emptyMessage); err != nil {
		return err
	}
	fmt.Fprintf(in.stderr, "%d of %d accepted", len(t.records), len(results))
	if t.uncertain > 0 {
		fmt.Fprintf(in.stderr, ", %d unknown", t.uncertain)
	}
	if waited {
		succeeded := len(t.records) - t.unsuccessful - t.unfinished
		fmt.Fprintf(in.stderr, ", %d succeeded, %d did not succeed, %d not finished", succeeded, t.unsuccessful, t.unfinished)
	}
	fmt.Fprintln(in.stderr, ".")
	if t.uncertain > 0 && !in.structured() {
		fmt.Fprintln(in.stderr, "  migctl command ID shows whether a command was accepted; migctl cancel ID cancels it.")
	}
	if f := in.denial(t.lastErr); f != nil && !in.structured() {
		in.showHint(f)
	}
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case t.notAccepted == len(results):
		return alreadyReported(in.explain(t.lastErr).code)
	case t.notAccepted > 0 || t.unsuccessful > 0:
		return alreadyReported(exitFailed)
	case t.unfinished > 0:
		return alreadyReported(exitNotEnded)
	default:
		return nil
	}
}

type drainCmd struct {
	VMs  []string `arg:"" name:"vm" help:"The ids of the VMs."`
	Wait duration `default:"1m" placeholder:"TIME" help:"Wait up to this long for each agent's ack (${default})."`
	TTL  duration `name:"ttl" placeholder:"TIME" help:"How long the command may wait for delivery. Default: the controller's, 1h unless configured otherwise."`
	reasonFlag
}

// Help returns the command's help text.
func (drainCmd) Help() string {
	return examples(
		"Sends the command drain to each VM. SUCCEEDED means that the agent has accepted it; a running job continues "+
			"to its end, which migctl watch --vm VM shows.",
		"migctl drain vm-1 vm-2",
		"migctl drain vm-1 --wait 5m --reason 'kernel update'",
	)
}

// Run drains VMs.
func (cmd drainCmd) Run(ctx context.Context, in *invocation) error {
	req, err := parameters{TTL: cmd.TTL, reasonFlag: cmd.reasonFlag}.request("drain")
	if err != nil {
		return err
	}
	if err := in.dial(); err != nil {
		return err
	}
	in.warn(ctx, "drain", cmd.VMs)
	return in.sendAll(ctx, req, cmd.VMs, time.Duration(cmd.Wait), 8)
}
