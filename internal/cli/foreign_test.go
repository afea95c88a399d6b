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

// Whatever a gateway answers, migctl reports something, and it reports that something does
// not exist only when the controller does.
func TestForeignAnswers(t *testing.T) {
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
				_, stderr, code := newDesk(t).run(append(strings.Fields(line), "--address", gateway.URL)...)
				require.NotEmpty(t, stderr, what)
				require.NotContains(t, stderr, ": \n", what)
				require.NotContains(t, []int{exitOK, exitNotFound}, code, what)
			}
			gateway.Close()
		}
	}
}

// A path in the address at which there is no controller is reported as such.
func TestForeignPath(t *testing.T) {
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
		_, stderr, code := newDesk(t).run(append(strings.Fields(line), "--address", server.URL+"/foo")...)
		require.Equal(t, exitUnavailable, code, line)
		require.NotContains(t, stderr, "never connected", line)
		require.NotContains(t, stderr, "may have been accepted", line)
		if !strings.HasPrefix(line, "drain") {
			require.Contains(t, stderr, "Check the scheme, port and path of --address", line)
		}
	}
}

// Without contexts, what is shown of the config file has none.
func TestConfigViewEmpty(t *testing.T) {
	t.Parallel()
	stdout, _, code := newDesk(t).run("config", "view", "-o", "json")
	require.Zero(t, code)
	require.JSONEq(t, `{"contexts":{}}`, stdout)
}

// A watch that was answered before does not wait for ever for what answers with pages now.
func TestWatchThatMeetsAGateway(t *testing.T) {
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
	d := newDesk(t)
	d.program.pause = func(context.Context, time.Duration) error { return nil }
	_, stderr, code := d.run("watch", "--address", server.URL)
	require.Equal(t, exitUnavailable, code, stderr)
	require.Contains(t, stderr, "is not a controller that migctl understands")
	require.EqualValues(t, 2, calls.Load())
}
