package control

import (
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/internal/auth"
	"github.com/mig-controller/mig-controller/internal/engine"
	"github.com/mig-controller/mig-controller/internal/fleet"
	"github.com/mig-controller/mig-controller/internal/store/memory"
)

// A Control does not listen after Close; closing twice is not an error.
func TestCloseStopsListening(t *testing.T) {
	t.Parallel()
	clock := func() time.Time { return time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC) }
	log := slog.New(slog.DiscardHandler)
	e, err := engine.Start(t.Context(), engine.Options{
		Driver: memory.New(), Rules: fleet.Rules{NewID: fleet.NewRegistrationID}, Clock: clock, Log: log,
	})
	require.NoError(t, err)
	t.Cleanup(func() { _ = e.Close() })
	c := New(Options{Engine: e, Defaults: fleet.CommandDefaults{TTL: time.Hour}, Clock: clock, Log: log})
	woken, leave := c.watches.join("")
	defer leave()
	send := func(wait time.Duration) {
		_, err := c.Send(auth.With(t.Context(), auth.Anyone()), fleet.CommandRequest{VM: "vm-1", Type: "drain"}, wait)
		require.NoError(t, err)
	}
	send(0)
	require.EqualValues(t, 1, <-woken)
	c.Close()
	send(time.Hour) // a wait that begins after Close ends immediately
	require.EqualValues(t, 2, e.LastChange())
	require.Empty(t, woken)
	c.Close()
}

// An error that a caller can act on is reduced to its sentinel; any other keeps its cause.
func TestNamed(t *testing.T) {
	t.Parallel()
	for _, known := range []error{fleet.ErrNotFound, fleet.ErrEnded, fleet.ErrIDTaken} {
		err := named(fmt.Errorf("select from commands: %w", known), "command", "c1")
		require.ErrorIs(t, err, known)
		require.EqualError(t, err, `command "c1": `+known.Error())
	}
	err := named(fmt.Errorf("disk on fire: %w", fleet.ErrUnavailable), "command", "c1")
	require.ErrorIs(t, err, fleet.ErrUnavailable)
	require.ErrorContains(t, err, "disk on fire")
}
