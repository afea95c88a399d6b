package app

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/mig-controller/mig-controller/internal/config"
	"github.com/mig-controller/mig-controller/internal/readiness"
	"github.com/mig-controller/mig-controller/internal/testkit"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// output is what a program writes.
type output = testkit.Buffer

// process is a program under test.
type process struct {
	program
	out, err output
	kill     chan os.Signal
}

func newProcess(svc *fakeService, environ ...string) *process {
	p := &process{kill: make(chan os.Signal, 2)}
	p.program = program{environ: environ, stdout: &p.out, stderr: &p.err, signals: p.kill, wiring: svc.wiring()}
	return p
}

// freePorts returns the arguments of a controller on free ports with its own directory.
func freePorts(t *testing.T, more ...string) []string {
	t.Helper()
	return append([]string{"--http-addr=127.0.0.1:0", "--grpc-addr=127.0.0.1:0", "--data-dir=" + t.TempDir()}, more...)
}

// A stop by a signal exits with 0, and with a JSON log every line is JSON.
func TestSignalStops(t *testing.T) {
	t.Parallel()
	for _, s := range []os.Signal{os.Interrupt, syscall.SIGTERM} {
		svc := newFakeService()
		p := newProcess(svc)
		status := make(chan int, 1)
		args := freePorts(t, "--log-format=json", "--registration-token=hush")
		go func() { status <- p.run(args) }()
		<-svc.running
		p.kill <- s
		require.Equal(t, exitOK, <-status, p.err.String())
		require.Equal(t, []string{"run", "end sessions", "run ended", "close"}, svc.history())
		require.Empty(t, p.out.String(), "with a JSON log nothing else is printed")
		requireJSONLines(t, p.err.String(), "controller started", "stopped", "fake warning")
		require.NotContains(t, p.err.String(), "hush")
	}
}

func requireJSONLines(t *testing.T, log string, messages ...string) {
	t.Helper()
	for line := range strings.Lines(log) {
		require.True(t, json.Valid([]byte(line)), line)
	}
	for _, m := range messages {
		require.Contains(t, log, `"msg":"`+m)
	}
}

// A signal that arrives twice at once, as from timeout and terminals, counts once: the stop is
// graceful.
func TestRepeatedSignalCountsOnce(t *testing.T) {
	t.Parallel()
	svc := newFakeService()
	hang, release := make(chan struct{}), make(chan struct{})
	svc.endSessions = func(context.Context) { close(hang); <-release }
	p := newProcess(svc)
	p.burst = time.Hour
	status := make(chan int, 1)
	args := freePorts(t)
	go func() { status <- p.run(args) }()
	<-svc.running
	p.kill <- os.Interrupt
	<-hang
	p.kill <- os.Interrupt
	close(release)
	require.Equal(t, exitOK, <-status)
	require.Contains(t, svc.history(), "close")
}

// A second signal does not wait for a blocked stop.
func TestSecondSignalStopsAtOnce(t *testing.T) {
	t.Parallel()
	svc := newFakeService()
	hang, release := make(chan struct{}), make(chan struct{})
	svc.endSessions = func(context.Context) { close(hang); <-release }
	p := newProcess(svc)
	status := make(chan int, 1)
	args := freePorts(t)
	go func() { status <- p.run(args) }()
	<-svc.running
	p.kill <- os.Interrupt
	<-hang
	for stopped := false; !stopped; {
		select {
		case p.kill <- os.Interrupt: // after signalBurst
		case s := <-status:
			require.Equal(t, exitFailure, s)
			stopped = true
		}
	}
	require.Contains(t, p.err.String(), "stopped at once by another signal")
	require.NotContains(t, svc.history(), "close")
	close(release)
	<-svc.closed
}

// A signal while the controller starts is a stop like any other.
func TestSignalWhileStarting(t *testing.T) {
	t.Parallel()
	svc := newFakeService()
	p := newProcess(svc)
	starting := make(chan struct{})
	p.wiring.newService = func(ctx context.Context, _ config.Options, _ front, _ *slog.Logger, _ *prometheus.Registry) (service, error) {
		close(starting)
		<-ctx.Done()
		return nil, ctx.Err()
	}
	status := make(chan int, 1)
	args := freePorts(t)
	go func() { status <- p.run(args) }()
	<-starting
	p.kill <- syscall.SIGTERM
	require.Equal(t, exitOK, <-status, p.err.String())
}

// SIGTERM ends a controller with a live HTTP/2 stream; the stream has ended
// before the store is closed.
func TestSignalEndsLiveStream(t *testing.T) {
	t.Parallel()
	svc := newFakeService()
	addr := make(chan string, 1)
	svc.announced = func(grpcAddr string) { addr <- grpcAddr }
	p := newProcess(svc)
	status := make(chan int, 1)
	args := freePorts(t, "--simulate=1")
	go func() { status <- p.run(args) }()

	client := h2cClient(t)
	res := openStream(t, client, "http://"+<-addr+"/stream")
	defer res.Body.Close()
	p.kill <- syscall.SIGTERM
	require.Equal(t, exitOK, <-status, p.err.String())
	h := svc.history()
	require.Contains(t, h, "stream ended")
	require.Equal(t, "close", h[len(h)-1], "the store is closed after the last stream: %v", h)
}

// A failure while it serves ends the controller with status 1.
func TestFailureExits(t *testing.T) {
	t.Parallel()
	svc := newFakeService()
	svc.run = func(context.Context) error { return errors.New("disk on fire") }
	p := newProcess(svc)
	require.Equal(t, exitFailure, p.run(freePorts(t)))
	require.Contains(t, p.err.String(), "disk on fire")
	require.Contains(t, svc.history(), "close")
}

// An exposed address is an invalid option, in either format of the log.
func TestExposedAddressExits(t *testing.T) {
	t.Parallel()
	for _, format := range []string{"text", "json"} {
		p := newProcess(newFakeService(), "CONTROLLER_GRPC_ADDR=0.0.0.0:0")
		dir := filepath.Join(t.TempDir(), "data")
		require.Equal(t, exitUsage, p.run([]string{"--http-addr=localhost:0", "--data-dir=" + dir, "--log-format=" + format}))
		require.Contains(t, p.err.String(), "--grpc-addr must be a loopback address")
		require.Contains(t, p.err.String(), "--agent-auth off")
		require.Contains(t, p.err.String(), "CONTROLLER_GRPC_ADDR")
		require.NoDirExists(t, dir, "a refused controller leaves nothing behind")
		if format == "json" {
			requireJSONLines(t, p.err.String(), "invalid option")
		}
	}
}

// --help and --version print to stdout whatever the other arguments are.
func TestTextsOnRequest(t *testing.T) {
	t.Parallel()
	for arg, want := range map[string]string{
		"--help":    "Usage: controller",
		"-h":        "Usage: controller",
		"--version": "controller " + Version() + " (go",
	} {
		p := newProcess(newFakeService(), "CONTROLLER_SIMULATE=wrong")
		require.Equal(t, exitOK, p.run([]string{"--log-level=wrong", arg}), arg)
		require.Contains(t, p.out.String(), want)
		require.Empty(t, p.err.String())
	}
}

// The linker's version takes precedence. Not parallel, because it is a global variable.
func TestVersionFromLinker(t *testing.T) {
	version = "v9.8.7"
	defer func() { version = "" }()
	require.Equal(t, "v9.8.7", Version())
	require.Contains(t, versionLine(), "controller v9.8.7 (go")
}

// The exported entry points use the real wiring.
func TestMainRefuses(t *testing.T) {
	t.Parallel()
	var out, errs output
	require.Equal(t, exitUsage, Main([]string{"--nonsense"}, nil, &out, &errs, nil))
	require.Contains(t, errs.String(), "--nonsense")
	var wrong output
	require.Equal(t, exitUsage, Main([]string{"--simulate=many"}, nil, &out, &wrong, nil))
	require.Contains(t, wrong.String(), "controller: --simulate must be a whole number (from the command line)\n")
	require.Empty(t, out.String())
	_, err := New(t.Context(), config.Options{}, slog.New(slog.DiscardHandler), &out)
	var option *config.OptionError
	require.ErrorAs(t, err, &option)
}

// fakeService is a service that does nothing and records its calls. Its handler answers 200,
// and /stream keeps a stream open until the sessions end.
type fakeService struct {
	run         func(context.Context) error
	endSessions func(context.Context)
	announced   func(grpcAddr string)
	stubborn    bool // streams continue until their request ends

	ready                  *readiness.Checks
	running, ended, closed chan struct{}

	mu     sync.Mutex
	events []string
}

func newFakeService() *fakeService {
	return &fakeService{ready: readiness.New(), running: make(chan struct{}), ended: make(chan struct{}), closed: make(chan struct{})}
}

func (f *fakeService) wiring() wiring {
	return wiring{
		newService: func(context.Context, config.Options, front, *slog.Logger, *prometheus.Registry) (service, error) {
			return f, nil
		},
		droppedLines: func() float64 { return 0 },
		simulate: func(ctx context.Context, _ config.Options, grpcAddr string, _ *tls.Config) error {
			if f.announced != nil {
				f.announced(grpcAddr)
			}
			<-ctx.Done()
			return ctx.Err()
		},
		lookup: config.LookupHost,
	}
}

func (f *fakeService) note(event string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.events = append(f.events, event)
}

func (f *fakeService) history() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]string(nil), f.events...)
}

func (f *fakeService) Handler() http.Handler { return http.HandlerFunc(f.serve) }

func (f *fakeService) serve(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path != "/stream" {
		return
	}
	w.WriteHeader(http.StatusOK)
	_ = http.NewResponseController(w).Flush()
	ended := f.ended
	if f.stubborn {
		ended = nil
	}
	select {
	case <-ended:
	case <-r.Context().Done():
	}
	f.note("stream ended")
}

func (f *fakeService) Ready() *readiness.Checks { return f.ready }

func (f *fakeService) Summary() summary {
	return summary{Database: "fake.db", Runners: "a fake source", Warnings: []string{"fake warning"}}
}

func (f *fakeService) Run(ctx context.Context) error {
	f.note("run")
	close(f.running)
	if f.run != nil {
		return f.run(ctx)
	}
	<-ctx.Done()
	f.note("run ended")
	return nil
}

func (f *fakeService) EndSessions(ctx context.Context) {
	f.note("end sessions")
	close(f.ended)
	if f.endSessions != nil {
		f.endSessions(ctx)
	}
}

func (f *fakeService) Close() error {
	f.note("close")
	close(f.closed)
	return nil
}
