//go:build !linux

package faults

import "testing"

// testIdlePeers needs Linux, where all addresses in 127.0.0.0/8 are usable.
var testIdlePeers func(t *testing.T)
