package engine

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/internal/fleet"
	"github.com/mig-controller/mig-controller/internal/store"
)

// Secrets are in the row of their command until it ends, and in no other row. Their end tells
// the driver to erase them, and no other commit does.
func TestSecretsLeaveWithTheirCommand(t *testing.T) {
	t.Parallel()
	stored, _ := onDisk(t)
	for _, r := range []*rig{inMemory(t), stored} {
		var commits []store.Writes
		r.db.onCommit(func(w store.Writes, next commitFunc) (store.Committed, error) {
			commits = append(commits, w)
			return next(w)
		})
		v := r.connect("vm", t0)
		c := drain(t, "c", "vm")
		c.Params.Strings = map[string]string{"a_token": "PLANT"}
		sent, err := r.Accept(t.Context(), c)
		require.NoError(t, err)
		require.Equal(t, "PLANT", sent.Params.Strings["a_token"])
		before := len(commits)
		for _, w := range commits {
			require.False(t, w.Erase)
		}
		r.ack("c", v, t0)
		kept, err := r.Command(t.Context(), "c")
		require.NoError(t, err)
		require.Equal(t, fleet.Succeeded, kept.State)
		require.Equal(t, fleet.Hidden, kept.Params.Strings["a_token"])

		erased := 0
		for i, w := range commits {
			if w.Erase {
				erased++
			}
			for _, row := range w.Changes {
				require.NotContains(t, string(row.Doc), "PLANT")
				require.NotContains(t, string(row.Doc), "a_token")
			}
			for _, row := range w.Commands {
				open := row.ID == "c" && i < before
				require.Equal(t, open, bytes.Contains(row.Doc, []byte("PLANT")), i)
			}
		}
		require.Equal(t, 1, erased)
		changes, _, err := r.Changes(t.Context(), store.ChangeQuery{}, 100)
		require.NoError(t, err)
		for _, change := range changes {
			if change.Command != nil {
				require.Empty(t, change.Command.Params)
				require.Empty(t, change.Command.SecretSum)
			}
		}
	}
}
