// Package cli owns migctl: its command-line grammar, tables, config file, error messages
// and exit statuses. It accesses the controller only through the generated AdminService
// client.
package cli

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/alecthomas/kong"
	"golang.org/x/term"

	"github.com/mig-controller/mig-controller/gen/go/migclient"
)

// defaultWidth is assumed for a terminal that does not report its width.
const defaultWidth = 80

// Main runs one command line and returns the exit status, as documented in migctl's help.
// SIGINT and SIGTERM cancel the operation.
func Main(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	// The first signal cancels the operation; the next one terminates the process.
	context.AfterFunc(ctx, stop)
	p := program{
		environ: environment(os.Environ()),
		stdin:   stdin, stdout: stdout, stderr: stderr,
		stdinTTY: isTerminal(stdin), stderrTTY: isTerminal(stderr),
		width: widthOf(stdout), stderrWidth: widthOf(stderr),
		now:   func() time.Time { return time.Now().UTC().Round(0) },
		pause: pause, silence: migclient.Silence,
		newID: newCommandID, tokenCommandTimeout: tokenCommandTimeout,
	}
	return p.run(ctx, args)
}

// program is the process environment of a command line.
type program struct {
	environ map[string]string
	stdin   io.Reader
	stdout  io.Writer
	stderr  io.Writer
	// stdinTTY and stderrTTY report whether stdin and stderr are terminals.
	stdinTTY, stderrTTY bool
	// width and stderrWidth return the current terminal widths of stdout and stderr; 0 if
	// the stream is not a terminal.
	width, stderrWidth func() int
	now                func() time.Time
	// pause waits, or returns the error of the context when it is done.
	pause func(context.Context, time.Duration) error
	// silence is how long a watch waits for a message before it reconnects.
	silence time.Duration
	// newID returns a new command id.
	newID func() string
	// tokenCommandTimeout limits a run of a token_command.
	tokenCommandTimeout time.Duration
}

func (p program) run(ctx context.Context, args []string) int {
	out := &output{Writer: p.stdout}
	p.stdout = out
	line := &commandLine{}
	helpShown := false
	parser, err := kong.New(line, p.grammar(func(int) { helpShown = true })...)
	if err != nil {
		panic(fmt.Sprintf("invalid grammar: %v", err))
	}
	if len(args) == 0 {
		args = []string{"--help"}
	}
	if args[0] == completeWord || args[0] == completeBash {
		p.complete(ctx, parser.Model, args[0], args[1:])
		return exitOK
	}
	parsed, err := parser.Parse(args)
	if helpShown {
		return exitOK
	}
	if err != nil {
		in := newInvocation(p, globals{})
		return in.report(in.parseFailure(err))
	}
	in := newInvocation(p, line.globals)
	in.node = parsed.Selected()
	defer in.close()
	parsed.BindTo(ctx, (*context.Context)(nil))
	err = parsed.Run(in)
	if ctx.Err() != nil {
		in.freshLine()
	}
	if err != nil && ctx.Err() != nil {
		return exitInterrupted
	}
	if err == nil && out.err != nil {
		err = fmt.Errorf("output: %w", out.err)
	}
	return in.report(err)
}

// output is stdout. It remembers the first write error, so that the exit status reports
// lost output.
type output struct {
	io.Writer
	err error
}

// Write implements io.Writer.
func (o *output) Write(p []byte) (int, error) {
	n, err := o.Writer.Write(p)
	o.err = cmp.Or(o.err, err)
	return n, err
}

func environment(pairs []string) map[string]string {
	environ := make(map[string]string, len(pairs))
	for _, pair := range pairs {
		name, value, _ := strings.Cut(pair, "=")
		environ[name] = value
	}
	return environ
}

// file is a stream with a file descriptor.
type file interface{ Fd() uintptr }

func isTerminal(stream any) bool {
	f, ok := stream.(file)
	return ok && term.IsTerminal(int(f.Fd()))
}

// widthOf returns a function that returns the terminal's current width: defaultWidth if it
// is unknown, 0 if the stream is not a terminal.
func widthOf(stream any) func() int {
	f, ok := stream.(file)
	if !ok || !isTerminal(stream) {
		return func() int { return 0 }
	}
	return func() int {
		if width, _, err := term.GetSize(int(f.Fd())); err == nil && width > 0 {
			return width
		}
		return defaultWidth
	}
}

func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// newCommandID returns a random id. The client creates it, not the controller, so that it
// is known even if the response is lost.
func newCommandID() string {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	return "ctl-" + hex.EncodeToString(b[:])
}
