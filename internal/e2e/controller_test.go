package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/gen/go/migcontroller/v1/migcontrollerv1connect"
	"github.com/mig-controller/mig-controller/internal/app"
	"github.com/mig-controller/mig-controller/internal/config"
)

// stopTime is the maximum duration of a stop.
const stopTime = 10 * time.Second

// controller is a whole controller in this process, with admin clients.
type controller struct {
	options            config.Options
	httpAddr, grpcAddr string
	log                *logbook
	// admin uses Connect with JSON over HTTP/1.1 to the HTTP address.
	admin migcontrollerv1connect.AdminServiceClient
	// grpcAdmin uses gRPC to the gRPC address.
	grpcAdmin migcontrollerv1connect.AdminServiceClient
	web       *http.Client

	cancel  context.CancelFunc
	ended   chan error
	stopped bool
	idle    []func()
}

// testOptions are the options of a controller for tests.
func testOptions(dir string) config.Options {
	o := config.Defaults()
	o.HTTPAddr, o.GRPCAddr, o.DataDir, o.LogLevel = "localhost:0", "localhost:0", dir, "debug"
	return o
}

// start returns a controller for one test, which ends with it.
func start(t *testing.T, change ...func(*config.Options)) *controller {
	t.Helper()
	o := testOptions(t.TempDir())
	for _, f := range change {
		f(&o)
	}
	return startWith(t, o)
}

func startWith(t *testing.T, o config.Options) *controller {
	t.Helper()
	c, err := startController(context.WithoutCancel(t.Context()), o)
	require.NoError(t, err)
	t.Cleanup(func() {
		require.NoError(t, c.end())
		if t.Failed() {
			for _, line := range append(c.log.lines("level=ERROR"), c.log.lines("level=WARN")...) {
				t.Log(line)
			}
		}
	})
	return c
}

func startController(ctx context.Context, o config.Options) (*controller, error) {
	c := &controller{options: o, log: &logbook{}, ended: make(chan error, 1)}
	log := slog.New(slog.NewTextHandler(c.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	a, err := app.New(ctx, o, log, c.log)
	if err != nil {
		return nil, err
	}
	c.httpAddr, c.grpcAddr = a.HTTPAddr(), a.GRPCAddr()
	plain := &http.Transport{MaxIdleConnsPerHost: 64}
	h2c := &http.Transport{Protocols: new(http.Protocols)}
	h2c.Protocols.SetUnencryptedHTTP2(true)
	c.idle = []func(){plain.CloseIdleConnections, h2c.CloseIdleConnections}
	c.web = &http.Client{Transport: plain}
	c.admin = migcontrollerv1connect.NewAdminServiceClient(c.web, "http://"+c.httpAddr, connect.WithProtoJSON())
	c.grpcAdmin = migcontrollerv1connect.NewAdminServiceClient(
		&http.Client{Transport: h2c}, "http://"+c.grpcAddr, connect.WithGRPC())
	ctx, c.cancel = context.WithCancel(ctx)
	go func() { c.ended <- a.Run(ctx) }()
	return c, nil
}

// end stops the controller as SIGTERM does. It returns an error if that fails or takes too
// long. It may be called twice.
func (c *controller) end() error {
	if c.stopped {
		return nil
	}
	c.stopped = true
	c.cancel()
	defer func() {
		for _, closeIdle := range c.idle {
			closeIdle()
		}
	}()
	select {
	case err := <-c.ended:
		return err
	case <-time.After(stopTime):
		return errors.Join(errors.New("the stop took more than 10 s"), <-c.ended)
	}
}

// restart stops the controller and starts another on its data directory.
func (c *controller) restart(t *testing.T) *controller {
	t.Helper()
	require.NoError(t, c.end())
	return startWith(t, c.options)
}

// addresses are where the controller serves, by name.
func (c *controller) addresses() map[string]string {
	return map[string]string{"the HTTP address": c.httpAddr, "the gRPC address": c.grpcAddr}
}

// call sends a request as curl does and returns the answer.
func (c *controller) call(t *testing.T, method, addr, path, body string) (status int, answer []byte) {
	t.Helper()
	status, answer, err := c.request(t.Context(), method, addr, path, body)
	require.NoError(t, err)
	return status, answer
}

func (c *controller) request(ctx context.Context, method, addr, path, body string) (int, []byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://"+addr+path, strings.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	res, err := c.web.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(res.Body)
	return res.StatusCode, answer, err
}

// files returns the VM's files in the journal whose names begin with prefix.
func (c *controller) files(t *testing.T, vm, prefix string) []string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(c.options.DataDir, vm, prefix+"*.json"))
	require.NoError(t, err)
	return found
}

// awaitFile waits for the VM's file whose name begins with prefix, and returns its content.
func (c *controller) awaitFile(t *testing.T, vm, prefix string) []byte {
	t.Helper()
	found := await(t, "a file "+prefix+"*.json of "+vm,
		func() []string { return c.files(t, vm, prefix) },
		func(files []string) bool { return len(files) == 1 })
	content, err := os.ReadFile(found[0])
	require.NoError(t, err)
	return content
}

// filesWith returns the names of all files in the data directory that contain text.
func (c *controller) filesWith(t *testing.T, text string) []string {
	t.Helper()
	var found []string
	err := filepath.WalkDir(c.options.DataDir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		content, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil // a temporary file that has been renamed
		}
		if bytes.Contains(content, []byte(text)) {
			found = append(found, path)
		}
		return err
	})
	require.NoError(t, err)
	return found
}

// logbook records what a controller logs and prints.
type logbook struct {
	mu   sync.Mutex
	text bytes.Buffer
}

// Write records a part of the log.
func (b *logbook) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

// lines returns the lines that contain all of the words.
func (b *logbook) lines(words ...string) []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	var found []string
	for line := range strings.Lines(b.text.String()) {
		missing := 0
		for _, w := range words {
			if !strings.Contains(line, w) {
				missing++
			}
		}
		if missing == 0 {
			found = append(found, line)
		}
	}
	return found
}

// refusals returns how many messages of the VM were rejected.
func (b *logbook) refusals(vm string) int {
	return len(b.lines("message refused", fmt.Sprintf("vm_id=%s ", vm)))
}
