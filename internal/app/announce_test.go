package app

import (
	"context"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/internal/config"
	"github.com/mig-controller/mig-controller/internal/sim"
)

// The start-up text has the addresses and paths, and not the token.
func TestAnnounceText(t *testing.T) {
	t.Parallel()
	o, err := config.Parse(freePorts(t), []string{"CONTROLLER_HTPP_ADDR=x"})
	require.NoError(t, err)
	o.RegistrationToken, o.Journal = "hush", false
	var out, logged output
	a, err := newApp(t.Context(), o, newLogger(o, &logged), &out, newFakeService().wiring())
	require.NoError(t, err)
	require.NoError(t, startApp(t, a)())
	for _, want := range []string{
		"MIG Controller " + Version(), a.HTTPAddr(), a.GRPCAddr(), o.DataDir, "fake.db", "a fake source", "journal     off",
	} {
		require.Contains(t, out.String(), want)
	}
	for _, want := range []string{"WARN  fake warning", "CONTROLLER_HTPP_ADDR"} {
		require.Contains(t, logged.String(), want)
	}
	require.NotContains(t, out.String()+logged.String(), "hush")
}

// The start-up text of a simulation describes its VMs. A JSON log has their number.
func TestAnnounceSimulation(t *testing.T) {
	t.Parallel()
	for format, shown := range map[string]bool{"text": true, config.FormatJSON: false} {
		o := testOptions(t)
		o.Simulate, o.LogFormat = 5, format
		var out, logged output
		a, err := newApp(t.Context(), o, newLogger(o, &logged), &out, newFakeService().wiring())
		require.NoError(t, err)
		a.simulate = func(ctx context.Context) error { <-ctx.Done(); return nil }
		require.NoError(t, startApp(t, a)())
		if !shown {
			require.Contains(t, logged.String(), `"simulated":5`)
			require.Empty(t, out.String())
			continue
		}
		for _, line := range sim.DemoLegend(5) {
			require.Contains(t, out.String(), "\n              "+line+"\n")
		}
	}
}

// The gate refuses requests after it is shut, and reports when the last request has returned.
func TestGate(t *testing.T) {
	t.Parallel()
	g := &gate{}
	require.True(t, g.enter())
	require.True(t, g.enter())
	g.leave()
	idle := g.shut()
	require.False(t, g.enter())
	select {
	case <-idle:
		require.Fail(t, "idle during a request")
	default:
	}
	g.leave()
	<-idle
	<-(&gate{}).shut()
	answer := httptest.NewRecorder()
	g.ServeHTTP(answer, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", http.NoBody))
	require.Equal(t, http.StatusServiceUnavailable, answer.Code)
}

// A low limit of open files is logged, with the number of VMs that it allows.
func TestOpenFilesWarning(t *testing.T) {
	t.Parallel()
	for limit, want := range map[uint64]string{
		100: "open_files=100 vms_about=0", 4096: "open_files=4096 vms_about=3968", fewFiles: "",
	} {
		var out output
		warnFewFiles(limit, newLogger(config.Options{}, &out))
		require.Contains(t, out.String(), want)
		require.Equal(t, want == "", out.String() == "")
	}
}
