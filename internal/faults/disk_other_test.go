//go:build !linux

package faults

import "testing"

// testDiskFull needs Linux, where one process can limit the file size of another.
var testDiskFull func(t *testing.T)
