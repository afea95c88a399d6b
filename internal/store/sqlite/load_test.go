package sqlite

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/internal/store"
)

// Reads that commits wait for do not wait for lists, however many are being read.
func TestLoadDoesNotWaitForLists(t *testing.T) {
	t.Parallel()
	db := openNew(t)
	commit(t, db, store.Writes{VMs: []store.VMRow{vm("a")}})
	release := make(chan struct{})
	ended := make(chan error, readers)
	for range readers {
		begun := make(chan struct{})
		go func() {
			ended <- db.read(t.Context(), func(*conn) error {
				close(begun)
				<-release
				return nil
			})
		}()
		<-begun
	}
	rows, err := db.Load(t.Context(), store.Keys{VMs: []string{"a"}})
	require.NoError(t, err)
	require.Len(t, rows.VMs, 1)
	_, _, err = db.Due(t.Context(), time.Now(), 1)
	require.NoError(t, err)
	_, err = db.Mark(t.Context(), "journaled_event")
	require.NoError(t, err)
	close(release)
	for range readers {
		require.NoError(t, <-ended)
	}
}
