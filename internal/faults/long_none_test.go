//go:build !faults

package faults

// long are built with the tag faults.
var long scenarios
