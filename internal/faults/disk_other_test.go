//go:build !linux

package faults

import "testing"

// testDiskFull needs Linux, where one process can limit the files of another.
var testDiskFull func(t *testing.T)
