package engine

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/internal/loglimit"
)

// Inputs that cannot be applied are logged a few times per minute.
func TestRepeatedLinesAreLimited(t *testing.T) {
	t.Parallel()
	r := inMemory(t)
	log := new(bytes.Buffer) // written by the loop, read between the calls
	r.Engine.Log = slog.New(slog.NewTextHandler(log, nil))
	now := t0
	r.Engine.Clock = func() time.Time { return now }
	again := func() {
		require.Error(t, r.change(func(*group) error { panic("at the disco") }))
	}
	for range 3 * loglimit.Lines {
		again()
	}
	require.Equal(t, loglimit.Lines, strings.Count(log.String(), "an input cannot be applied"))
	now = now.Add(loglimit.Period)
	again()
	require.Equal(t, 1, strings.Count(log.String(), "suppressed=20"))
}
