package fleet

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// A limited input applies to VMs of its pools only. For others it returns the same error and
// changes nothing, whether they are in another pool, in none, or were never seen.
func TestLimited(t *testing.T) {
	t.Parallel()
	in := func(pool string) bool {
		require.NotEmpty(t, pool)
		return pool == "a" || pool == "b"
	}
	command := drain("c")
	for name, test := range map[string]struct {
		pool    string
		unknown bool
		sees    bool
	}{
		"own pool":     {pool: "a", sees: true},
		"another pool": {pool: "c"},
		"no pool":      {},
		"never seen":   {unknown: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var s State
			if !test.unknown {
				s = stateOf(liveVM())
				s.VM.Pool = test.pool
			}
			pending := s
			pending.Commands = []Command{command}
			for _, part := range []struct {
				s  State
				in Input
			}{
				{s, CommandAccepted{New: command}},
				{pending, CommandAccepted{New: command}}, // a repetition
				{pending, CancelRequested{VM: command.VM, Command: command.ID}},
			} {
				want, err := Rules{}.Reduce(part.s, part.in, t0)
				require.NoError(t, err)
				got, err := Rules{}.Reduce(part.s, Limit(part.in, in), t0)
				if !test.sees {
					require.ErrorIs(t, err, ErrNotFound)
					require.Equal(t, Outcome{State: part.s}, got)
					continue
				}
				require.NoError(t, err)
				want.VMChecked = true
				require.Equal(t, want, got)
				require.Equal(t, part.in, Limit(part.in, nil), "no limit")
			}
			other := command
			other.Type = "shutdown"
			_, err := Rules{}.Reduce(pending, Limit(CommandAccepted{New: other}, in), t0)
			if test.sees {
				require.ErrorIs(t, err, ErrIDTaken)
			} else {
				require.ErrorIs(t, err, ErrNotFound, "whether the id is in use is not revealed")
			}
		})
	}
}
