package engine

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/internal/loglimit"
	"github.com/mig-controller/mig-controller/internal/store"
)

// What each heartbeat of a damaged VM, and each input that cannot be applied, would log is
// logged some times a minute.
func TestRepeatedLinesAreLimited(t *testing.T) {
	t.Parallel()
	r := inMemory(t)
	log := new(bytes.Buffer) // written by the loop, and read between the calls
	r.Engine.Log = slog.New(slog.NewTextHandler(log, nil))
	now := t0
	r.Engine.Clock = func() time.Time { return now }
	r.event("vm", t0)
	r.event("other", t0)
	r.damage(store.Writes{VMs: r.rows(store.Keys{VMs: []string{"vm", "other"}}).VMs})
	again := func() {
		require.NoError(t, r.RecordHeartbeats(t.Context(), heartbeatsOf2("vm")))
		require.Error(t, r.change(func(*group) error { panic("at the disco") }))
	}
	for range 3 * loglimit.Lines {
		again()
	}
	require.Equal(t, loglimit.Lines, strings.Count(log.String(), "heartbeat not applied"))
	require.Equal(t, loglimit.Lines, strings.Count(log.String(), "an input cannot be applied"))
	require.NoError(t, r.RecordHeartbeats(t.Context(), heartbeatsOf2("other")))
	require.Equal(t, loglimit.Lines+1, strings.Count(log.String(), "heartbeat not applied"), "those of another VM")

	now = now.Add(loglimit.Period)
	again()
	require.Equal(t, 2, strings.Count(log.String(), "suppressed=20"))
}
