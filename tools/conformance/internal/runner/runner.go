// Package runner owns `make conformance`: it builds the programs, runs the suites against
// both ports, in plaintext and with TLS, and prints a summary.
package runner

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"

	"github.com/mig-controller/mig-controller/tools/conformance/internal/connectsuite"
	"github.com/mig-controller/mig-controller/tools/conformance/internal/h2spec"
	"github.com/mig-controller/mig-controller/tools/conformance/internal/known"
	"github.com/mig-controller/mig-controller/tools/conformance/internal/target"
)

// Paths relative to tools/conformance.
const (
	product     = "../.."
	built       = "../../bin/conformance"
	h2specKnown = "h2spec-known.txt"
	connKnown   = "connect-known.txt"
	connConfig  = "connect.yaml"
)

// How often a case that may lose a race is retried, by suite. One try takes at most two
// seconds.
const (
	h2specTries  = 30
	connectTries = 10
)

// errDiffers occurs when a result differs from the lists.
var errDiffers = errors.New("results differ from the lists of known differences")

// Main runs the suites in the current directory, which must be tools/conformance,
// according to args, and returns the exit status: 0 if every result is as listed.
func Main(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("conformance", flag.ContinueOnError)
	flags.SetOutput(stderr)
	only := flags.String("only", "", "run only this suite: h2spec or connect")
	reference := flags.Bool("reference", false, "also compare plain net/http with the list for h2spec")
	within := flags.Duration("within", 10*time.Minute, "give up after this time, measured from the end of the build")
	if err := flags.Parse(args); err != nil {
		return 2
	}
	if flags.NArg() > 0 || !slices.Contains([]string{"", "h2spec", "connect"}, *only) {
		flags.Usage()
		return 2
	}
	r := &runner{out: stdout}
	if err := r.run(ctx, *only, *reference, *within); err != nil {
		fmt.Fprintln(stderr, "conformance:", err)
		return 1
	}
	return 0
}

type runner struct {
	out  io.Writer
	dir  string // temporary, for this run
	cert target.Certificate
	rows []row
	// began is when the current suite began.
	began time.Time
}

// row is a line of the summary.
type row struct {
	suite, port, transport string
	verdict                known.Verdict
}

func (r *runner) run(ctx context.Context, only string, reference bool, within time.Duration) (err error) {
	if r.dir, err = os.MkdirTemp("", "conformance-"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(r.dir)) }()
	if r.cert, err = target.NewCertificate(r.dir); err != nil {
		return err
	}
	if err := r.build(ctx); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, within, fmt.Errorf("not done within %s", within))
	defer cancel()
	if only != "connect" {
		if err := r.h2spec(ctx, reference); err != nil {
			return err
		}
	}
	if only != "h2spec" {
		if err := r.connect(ctx); err != nil {
			return err
		}
	}
	return r.summary()
}

// build builds the controller, the server for the connectrpc suite, and the tools.
func (r *runner) build(ctx context.Context) error {
	r.begin("Building the controller and the pinned suites, which takes minutes the first time")
	out, err := filepath.Abs(built)
	if err != nil {
		return err
	}
	for _, b := range []struct {
		dir      string
		packages []string
	}{
		{product, []string{"./cmd/controller"}},
		{".", []string{"./cmd/subject", "connectrpc.com/conformance/cmd/connectconformance", "github.com/summerwind/h2spec/cmd/h2spec"}},
	} {
		cmd := exec.CommandContext(ctx, "go", append([]string{"build", "-o", out + string(filepath.Separator)}, b.packages...)...) //nolint:gosec // constants
		cmd.Dir, cmd.Stdout, cmd.Stderr = b.dir, r.out, r.out
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0") // like make build
		if err := cmd.Run(); err != nil {
			return fmt.Errorf("go build: %w", err)
		}
	}
	return nil
}

// transport is plaintext or TLS.
type transport struct {
	name string
	cert target.Certificate
}

func (r *runner) transports() []transport {
	return []transport{{"plaintext", target.Certificate{}}, {"TLS", r.cert}}
}

func (r *runner) h2spec(ctx context.Context, reference bool) error {
	list, err := readList(h2specKnown)
	if err != nil {
		return err
	}
	for _, t := range r.transports() {
		c, err := target.StartController(ctx, filepath.Join(built, "controller"), t.cert)
		if err != nil {
			return err
		}
		err = errors.Join(
			r.h2specOn(ctx, "--http-addr", c.HTTPAddr, t, list),
			r.h2specOn(ctx, "--grpc-addr", c.GRPCAddr, t, list),
			c.Stop(),
		)
		if err != nil {
			return err
		}
		if !reference {
			continue
		}
		n, err := target.StartNetHTTP(ctx, t.cert)
		if err != nil {
			return err
		}
		own := known.OfReference(list, t.name == "TLS")
		if err := errors.Join(r.h2specOn(ctx, "net/http", n.Addr, t, own), n.Stop()); err != nil {
			return err
		}
	}
	return nil
}

// h2specOn runs h2spec on one port.
func (r *runner) h2specOn(ctx context.Context, port, addr string, t transport, list []known.Case) error {
	r.begin("h2spec, %s, %s", port, t.name)
	tool := h2spec.Tool{Path: filepath.Join(built, "h2spec"), Dir: r.dir}
	tls := t.cert != (target.Certificate{})
	results, err := tool.Run(ctx, addr, tls)
	if err != nil {
		return err
	}
	v := known.Judge(results, list)
	err = r.retry(&v, h2specTries, func(id string) (bool, error) {
		return tool.PassesWithin(ctx, h2specTries, addr, tls, id)
	})
	r.add(row{"h2spec", port, t.name, v})
	return err
}

// connect runs the connectrpc suite on both ports. The suite starts a server for each
// protocol, HTTP version and transport.
func (r *runner) connect(ctx context.Context) error {
	list, err := readList(connKnown)
	if err != nil {
		return err
	}
	for _, port := range []string{"http", "grpc"} {
		name := "--" + port + "-addr"
		r.begin("connectrpc conformance, %s, plaintext and TLS", name)
		tool := connectsuite.Tool{
			Path: filepath.Join(built, "connectconformance"), Config: connConfig,
			Server: []string{filepath.Join(built, "subject"), port},
			Log:    filepath.Join(built, "connectconformance-"+port+".log"),
		}
		v, err := tool.Run(ctx, list)
		if err != nil {
			return err
		}
		err = r.retry(&v, connectTries, func(id string) (bool, error) {
			return tool.PassesWithin(ctx, connectTries, id)
		})
		r.add(row{"connectrpc", name, "both", v})
		if err != nil {
			return err
		}
	}
	return nil
}

// retry retries the cases that may have lost a race. Those that pass count as passed.
func (r *runner) retry(v *known.Verdict, tries int, passes func(id string) (bool, error)) error {
	for _, id := range v.Raced {
		fmt.Fprintf(r.out, "    %s may have lost a race and is retried\n", id)
		passed, err := passes(id)
		if err != nil {
			return err
		}
		v.Known--
		if passed {
			v.Passed++
		} else {
			v.Unexpected = append(v.Unexpected, fmt.Sprintf("%s failed, and %d more times", id, tries))
		}
	}
	return nil
}

func (r *runner) begin(what string, args ...any) {
	r.began = time.Now()
	fmt.Fprintf(r.out, "==> "+what+"\n", args...)
}

// add records and prints the result of the current suite.
func (r *runner) add(w row) {
	r.rows = append(r.rows, w)
	fmt.Fprintf(r.out, "    %d cases: %d passed, %d known differences, %d unexpected (%.0f s)\n",
		w.verdict.Cases, w.verdict.Passed, w.verdict.Known, len(w.verdict.Unexpected), time.Since(r.began).Seconds())
	for _, u := range w.verdict.Unexpected {
		fmt.Fprintf(r.out, "    UNEXPECTED: %s\n", u)
	}
}

// summary returns errDiffers if there are unexpected results.
func (r *runner) summary() error {
	fmt.Fprintf(r.out, "\n%-11s %-12s %-10s %6s %7s %6s %11s\n", "suite", "port", "transport", "cases", "passed", "known", "unexpected")
	differs := false
	for _, w := range r.rows {
		fmt.Fprintf(r.out, "%-11s %-12s %-10s %6d %7d %6d %11d\n", w.suite, w.port, w.transport,
			w.verdict.Cases, w.verdict.Passed, w.verdict.Known, len(w.verdict.Unexpected))
		differs = differs || len(w.verdict.Unexpected) > 0
	}
	if differs {
		return errDiffers
	}
	return nil
}

func readList(path string) ([]known.Case, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // opened for reading
	list, err := known.Read(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return list, nil
}
