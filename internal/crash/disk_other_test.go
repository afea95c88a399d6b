//go:build !linux

package crash

import "testing"

func TestNoMoreBytes(t *testing.T) {
	t.Skip("not tested here: only Linux lets one process limit another's files")
}

func TestDiskFull(t *testing.T) {
	t.Skip("not tested here: only Linux lets a process mount a file system of its own")
}
