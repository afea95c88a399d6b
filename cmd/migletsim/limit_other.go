//go:build !unix

package main

import "io"

// warnOfFileLimit does nothing where there is no such limit.
func warnOfFileLimit(io.Writer, int) {}
