// Package runner owns `make conformance`: it builds what is tested and what tests it,
// runs the suites against both ports, in plaintext and with TLS, with each implementation
// of HTTP/2, and sums up.
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
	only := flags.String("only", "", "run one suite alone: h2spec or connect")
	http2 := flags.String("http2", "", "test one implementation of HTTP/2 alone: x/net or net/http")
	reference := flags.Bool("reference", false, "also compare plain net/http with the list for h2spec")
	within := flags.Duration("within", 20*time.Minute, "give up after this time, which begins when all is built")
	if err := flags.Parse(args); err != nil {
		return 2
	}
	tested := slices.DeleteFunc(slices.Clone(implementations), func(i implementation) bool { return *http2 != "" && *http2 != i.name })
	if flags.NArg() > 0 || len(tested) == 0 || !slices.Contains([]string{"", "h2spec", "connect"}, *only) {
		flags.Usage()
		return 2
	}
	r := &runner{out: stdout, tested: tested}
	if err := r.run(ctx, *only, *reference, *within); err != nil {
		fmt.Fprintln(stderr, "conformance:", err)
		return 1
	}
	return 0
}

// implementation is what serves HTTP/2 in the controller.
type implementation struct {
	name string
	// dir is where its programs are, below built.
	dir string
	// tags are the build tags that choose it.
	tags string
}

var implementations = []implementation{{name: "x/net", dir: "xnet"}, {name: "net/http", dir: "nethttp", tags: "nethttp2"}}

// program is the path of a program with the implementation.
func (i implementation) program(name string) string { return filepath.Join(built, i.dir, name) }

type runner struct {
	out    io.Writer
	tested []implementation
	dir    string // of this run; removed after it
	cert   target.Certificate
	rows   []row
	// began is when the suite that is running began.
	began time.Time
}

// row is a line of the summary.
type row struct {
	suite, http2, port, transport string
	verdict                       known.Verdict
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
	if reference && only != "connect" {
		if err := r.reference(ctx); err != nil {
			return err
		}
	}
	for _, i := range r.tested {
		if only != "connect" {
			if err := r.h2spec(ctx, i); err != nil {
				return err
			}
		}
		if only != "h2spec" {
			if err := r.connect(ctx, i); err != nil {
				return err
			}
		}
	}
	return r.summary()
}

// build builds the controllers, the servers for the connectrpc suite, and the tools.
func (r *runner) build(ctx context.Context) error {
	r.begin("Building the controllers and the pinned suites, which takes minutes the first time")
	suites := []string{"connectrpc.com/conformance/cmd/connectconformance", "github.com/summerwind/h2spec/cmd/h2spec"}
	if err := r.goBuild(ctx, ".", "", "", suites...); err != nil {
		return err
	}
	for _, i := range r.tested {
		err := errors.Join(
			r.goBuild(ctx, product, i.dir, i.tags, "./cmd/controller"),
			r.goBuild(ctx, ".", i.dir, i.tags, "./cmd/subject"),
		)
		if err != nil {
			return err
		}
	}
	return nil
}

// goBuild builds packages of the module in a directory, with build tags, into one below
// built.
func (r *runner) goBuild(ctx context.Context, module, into, tags string, packages ...string) error {
	out, err := filepath.Abs(filepath.Join(built, into))
	if err != nil {
		return err
	}
	args := append([]string{"build", "-tags", tags, "-o", out + string(filepath.Separator)}, packages...)
	cmd := exec.CommandContext(ctx, "go", args...) //nolint:gosec // constants
	cmd.Dir, cmd.Stdout, cmd.Stderr = module, r.out, r.out
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0") // as make build does
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("go build: %w", err)
	}
	return nil
}

// transport is how a port is spoken to.
type transport struct {
	name string
	cert target.Certificate
}

func (r *runner) transports() []transport {
	return []transport{{"plaintext", target.Certificate{}}, {"TLS", r.cert}}
}

// h2spec runs h2spec on both ports.
func (r *runner) h2spec(ctx context.Context, i implementation) error {
	list, err := readList(h2specKnown)
	if err != nil {
		return err
	}
	for _, t := range r.transports() {
		c, err := target.StartController(ctx, i.program("controller"), t.cert)
		if err != nil {
			return err
		}
		err = errors.Join(
			r.h2specOn(ctx, i.name, "--http-addr", c.HTTPAddr, t, list),
			r.h2specOn(ctx, i.name, "--grpc-addr", c.GRPCAddr, t, list),
			c.Stop(),
		)
		if err != nil {
			return err
		}
	}
	return nil
}

// reference runs h2spec on plain net/http.
func (r *runner) reference(ctx context.Context) error {
	list, err := readList(h2specKnown)
	if err != nil {
		return err
	}
	for _, t := range r.transports() {
		n, err := target.StartNetHTTP(ctx, t.cert)
		if err != nil {
			return err
		}
		own := known.OfReference(list, t.name == "TLS")
		if err := errors.Join(r.h2specOn(ctx, "plain", "net/http", n.Addr, t, own), n.Stop()); err != nil {
			return err
		}
	}
	return nil
}

// h2specOn runs h2spec on one port.
func (r *runner) h2specOn(ctx context.Context, http2, port, addr string, t transport, list []known.Case) error {
	r.begin("h2spec, HTTP/2 by %s, %s, %s", http2, port, t.name)
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
	r.add(row{"h2spec", http2, port, t.name, v})
	return err
}

// connect runs the connectrpc suite on both ports. It starts a server of its own for
// each protocol, version of HTTP and transport.
func (r *runner) connect(ctx context.Context, i implementation) error {
	list, err := readList(connKnown)
	if err != nil {
		return err
	}
	for _, port := range []string{"http", "grpc"} {
		name := "--" + port + "-addr"
		r.begin("connectrpc conformance, HTTP/2 by %s, %s, plaintext and TLS", i.name, name)
		tool := connectsuite.Tool{
			Path: filepath.Join(built, "connectconformance"), Config: connConfig,
			Server: []string{i.program("subject"), port},
			Log:    i.program("connectconformance-" + port + ".log"),
		}
		v, err := tool.Run(ctx, list)
		if err != nil {
			return err
		}
		err = r.retry(&v, connectTries, func(id string) (bool, error) {
			return tool.PassesWithin(ctx, connectTries, id)
		})
		r.add(row{"connectrpc", i.name, name, "both", v})
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
	fmt.Fprintf(r.out, "\n%-11s %-9s %-12s %-10s %6s %7s %6s %11s\n", "suite", "HTTP/2", "port", "transport", "cases", "passed", "known", "unexpected")
	differs := false
	for _, w := range r.rows {
		fmt.Fprintf(r.out, "%-11s %-9s %-12s %-10s %6d %7d %6d %11d\n", w.suite, w.http2, w.port, w.transport,
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
