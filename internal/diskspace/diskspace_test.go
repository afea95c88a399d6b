//go:build linux || darwin || freebsd

package diskspace

import (
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// The space of the file system of a directory or a file is plausible, and that of nothing is
// an error.
func TestMeasure(t *testing.T) {
	t.Parallel()
	here, err := Measure(t.TempDir())
	require.NoError(t, err)
	require.NotZero(t, here.Free)
	require.Greater(t, here.Total, here.Free)
	_, err = Measure(filepath.Join(t.TempDir(), "none"))
	require.Error(t, err)
}
