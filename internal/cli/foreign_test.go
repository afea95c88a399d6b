package cli

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/gen/go/migcontroller/v1/migcontrollerv1connect"
)

// Whatever a gateway responds, migctl reports an error, and never one that only the
// controller can return, such as not found.
func TestGatewayResponses(t *testing.T) {
	t.Parallel()
	bodies := map[string]string{
		"application/json": `{"error":"no route"}`, "application/json; charset=utf-8": `{"code":404,"message":"no route"}`,
		"text/html": "<html>no route</html>", "application/problem+json": `{"code":"not_found","message":"no route"}`, "text/plain": "", "": "{}",
	}
	lines := []string{
		"vms", "vm vm-1", "command c1", "send vm-1 drain", "drain vm-1", "cancel c1", "watch", "events -f", "version", "vms -o json",
	}
	for _, status := range []int{200, 301, 400, 404, 405, 429, 500, 502, 503, 504} {
		for kind, body := range bodies {
			gateway := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Type", kind)
				w.WriteHeader(status)
				_, _ = io.WriteString(w, body)
			}))
			for _, line := range lines {
				what := fmt.Sprintf("%s after %d %s %s", line, status, kind, body)
				_, stderr, code := newDriver(t).run(append(strings.Fields(line), "--address", gateway.URL)...)
				require.NotEmpty(t, stderr, what)
				require.NotContains(t, stderr, ": \n", what)
				require.NotContains(t, []int{exitOK, exitNotFound}, code, what)
			}
			gateway.Close()
		}
	}
}

// An address with a wrong path is reported as not a controller.
func TestWrongPath(t *testing.T) {
	t.Parallel()
	mux := http.NewServeMux()
	mux.Handle(migcontrollerv1connect.NewAdminServiceHandler(newFakeFleet()))
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) { // as the controller does
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusNotFound)
		_, _ = io.WriteString(w, `{"code":"unimplemented","message":"there is nothing at this path"}`)
	})
	server := httptest.NewServer(mux)
	defer server.Close()
	for _, line := range []string{"vms", "vm vm-1", "command ctl-aa02", "send vm-1 drain", "drain vm-1", "version"} {
		_, stderr, code := newDriver(t).run(append(strings.Fields(line), "--address", server.URL+"/foo")...)
		require.Equal(t, exitUnavailable, code, line)
		require.NotContains(t, stderr, "never connected", line)
		require.NotContains(t, stderr, "may have been accepted", line)
		if !strings.HasPrefix(line, "drain") {
			require.Contains(t, stderr, "Check the scheme, port and path of --address", line)
		}
	}
}

// Without a config file, config view prints empty contexts.
func TestConfigViewEmpty(t *testing.T) {
	t.Parallel()
	stdout, _, code := newDriver(t).run("config", "view", "-o", "json")
	require.Zero(t, code)
	require.JSONEq(t, `{"contexts":{}}`, stdout)
}

// A watch ends with an error if a gateway responds instead of the controller after a
// disconnect.
func TestWatchGatewayResponse(t *testing.T) {
	t.Parallel()
	fleet := newFakeFleet()
	fleet.streams = []watchStream{sends(nil, cursorOnly("c0"))}
	_, handler := migcontrollerv1connect.NewAdminServiceHandler(fleet)
	var calls atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if calls.Add(1) == 1 {
			handler.ServeHTTP(w, r)
			return
		}
		w.Header().Set("Content-Type", "text/html")
		_, _ = io.WriteString(w, "<html>back soon</html>")
	}))
	defer server.Close()
	d := newDriver(t)
	d.program.pause = func(context.Context, time.Duration) error { return nil }
	_, stderr, code := d.run("watch", "--address", server.URL)
	require.Equal(t, exitUnavailable, code, stderr)
	require.Contains(t, stderr, "is not a controller that migctl understands")
	require.EqualValues(t, 2, calls.Load())
}
