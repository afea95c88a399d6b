//go:build !unix

package httpserver

// OpenFiles reports that there is no such limit here.
func OpenFiles() (uint64, bool) { return 0, false }
