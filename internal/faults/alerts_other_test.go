//go:build !linux

package faults

import "testing"

// testAlertDiskFull needs Linux, where a process can have a file system of its own.
var testAlertDiskFull func(t *testing.T)
