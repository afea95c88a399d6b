//go:build !unix

package main

import "io"

// warnOfFileLimit does nothing on systems without such a limit.
func warnOfFileLimit(io.Writer, int) {}
