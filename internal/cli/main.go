// Package cli owns migctl: the grammar of its command line, its tables, the file of
// contexts, the wording of errors and the exit statuses. It uses the controller through
// the generated client of AdminService only.
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

// usualWidth is that of a terminal that does not say its own.
const usualWidth = 80

// Main runs one command line and returns the status to exit with; the help of
// migctl lists what each means. SIGINT and SIGTERM cancel the operation.
func Main(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	// The first signal cancels the operation; the next one ends migctl.
	context.AfterFunc(ctx, stop)
	p := program{
		environ: environment(os.Environ()),
		stdin:   stdin, stdout: stdout, stderr: stderr,
		asks: isTerminal(stdin), reports: isTerminal(stderr),
		width: widthOf(stdout), noteWidth: widthOf(stderr),
		now:   func() time.Time { return time.Now().UTC().Round(0) },
		pause: pause, silence: migclient.Silence,
		newID: newCommandID,
	}
	return p.run(ctx, args)
}

// program is the process around a command line.
type program struct {
	environ map[string]string
	stdin   io.Reader
	stdout  io.Writer
	stderr  io.Writer
	// asks and reports are whether stdin and stderr are terminals.
	asks, reports bool
	// width and noteWidth are those of the terminals behind stdout and stderr as they
	// are now; 0 when there is none.
	width, noteWidth func() int
	now              func() time.Time
	// pause waits, or ends early with the error of its context.
	pause func(context.Context, time.Duration) error
	// silence is how long a watch may be without an answer before it reconnects.
	silence time.Duration
	// newID returns a new id for a command.
	newID func() string
}

func (p program) run(ctx context.Context, args []string) int {
	out := &output{Writer: p.stdout}
	p.stdout = out
	line := &commandLine{}
	asked := false
	parser, err := kong.New(line, p.grammar(func(int) { asked = true })...)
	if err != nil {
		panic(fmt.Sprintf("invalid grammar: %v", err))
	}
	args = withHelp(args)
	if args[0] == completeWord || args[0] == completeBash {
		p.complete(ctx, parser.Model, args[0], args[1:])
		return exitOK
	}
	parsed, err := parser.Parse(args)
	if asked {
		return exitOK
	}
	if err != nil {
		in := newInvocation(p, globals{})
		return in.report(in.misread(err))
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

// output is stdout, and remembers an error: when output is lost, the exit status must
// show it.
type output struct {
	io.Writer
	err error
}

// Write writes what it can.
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

// file is a stream that may be a terminal.
type file interface{ Fd() uintptr }

func isTerminal(stream any) bool {
	f, ok := stream.(file)
	return ok && term.IsTerminal(int(f.Fd()))
}

// widthOf returns what reports how many columns the terminal has now: 80 if it does not
// say, 0 if the stream is not a terminal.
func widthOf(stream any) func() int {
	f, ok := stream.(file)
	if !ok || !isTerminal(stream) {
		return func() int { return 0 }
	}
	return func() int {
		if width, _, err := term.GetSize(int(f.Fd())); err == nil && width > 0 {
			return width
		}
		return usualWidth
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

// newCommandID returns a new id. It is created here and not by the controller, so that it
// is known even when the answer is lost.
func newCommandID() string {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never an error
	return "ctl-" + hex.EncodeToString(b[:])
}
