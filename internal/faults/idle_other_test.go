//go:build !linux

package faults

import "testing"

// testIdlePeers needs Linux, where all of 127.0.0.0/8 can be called from.
var testIdlePeers func(t *testing.T)
