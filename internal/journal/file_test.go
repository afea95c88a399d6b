package journal

import (
	"errors"
	"fmt"
	"io/fs"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/internal/fleet"
)

// Only errors that need an administrator are skipped; shortages pass.
func TestOfOneVM(t *testing.T) {
	t.Parallel()
	for fault, want := range map[error]bool{
		nil:                             false,
		fleet.Invalid("type", "rule"):   true,
		syscall.ENOTDIR:                 true,
		fs.ErrExist:                     true,
		syscall.EACCES:                  true,
		syscall.ENOSPC:                  false,
		syscall.EMFILE:                  false,
		syscall.EIO:                     false,
		errors.New("something unknown"): false,
	} {
		wrapped := fault
		if fault != nil {
			wrapped = fmt.Errorf("journal: %w", fault)
		}
		require.Equal(t, want, ofOneVM(wrapped), "%v", fault)
	}
}
