package memory_test

import (
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/mig-controller/mig-controller/internal/store"
	"github.com/mig-controller/mig-controller/internal/store/memory"
	"github.com/mig-controller/mig-controller/internal/store/storetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// The driver satisfies the contract.
func TestMemory(t *testing.T) {
	t.Parallel()
	storetest.Run(t, storetest.Drivers{
		New: func(*testing.T) store.Driver { return memory.New() },
		Crash: func(t *testing.T, old store.Driver) store.Driver {
			t.Helper()
			db, ok := old.(*memory.DB)
			require.True(t, ok)
			return db.Crash()
		},
		// A shared database is a single value.
		Shared: func(_ *testing.T, d store.Driver) store.Driver { return d },
	})
}
