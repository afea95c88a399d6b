package loglimit

import (
	"bytes"
	"log/slog"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// For each kind and subject ten lines per minute are written, and the next one has the
// number of suppressed lines.
func TestLinesAreLimited(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	log := slog.New(slog.NewTextHandler(&out, nil))
	var l Limiter
	now := time.Unix(1000, 0)
	for _, about := range []string{"vm-1", "vm-2"} {
		for range 25 {
			l.Limited(log, "refused", about, now).Info("refused")
		}
		l.Limited(log, "reported", about, now).Info("reported")
	}
	require.Equal(t, 2*Lines, strings.Count(out.String(), "refused"))
	require.Equal(t, 2, strings.Count(out.String(), "reported"), "another kind")
	require.NotContains(t, out.String(), KeySuppressed)
	l.Limited(log, "refused", "vm-1", now.Add(Period)).Info("again")
	require.Contains(t, out.String(), "again suppressed=15\n")
	for range Lines {
		l.Limited(log, "refused", "vm-1", now.Add(Period)).Info("more")
	}
	l.Limited(log, "refused", "vm-1", now.Add(-time.Hour)).Info("earlier")
	require.Contains(t, out.String(), "earlier", "the clock was set back")
}

// Many subjects neither use unbounded memory nor circumvent the limit.
func TestSubjectsAreLimited(t *testing.T) {
	t.Parallel()
	var l Limiter
	now := time.Unix(1000, 0)
	written := 0
	for i := range 2 * maxKnown {
		if _, ok := l.due(key{"refused", strconv.Itoa(i)}, now); ok {
			written++
		}
	}
	require.Equal(t, maxKnown+Lines, written)
	require.LessOrEqual(t, len(l.known), maxKnown+1)
	_, ok := l.due(key{"refused", "another"}, now.Add(Period))
	require.True(t, ok)
	require.Len(t, l.known, 1, "quiet subjects are dropped")
}
