//go:build !faults

package faults

// long is empty without the build tag faults.
var long scenarios
