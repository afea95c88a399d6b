//go:build !unix

package httpserver

// OpenFiles reports that the limit is not known on this platform.
func OpenFiles() (uint64, bool) { return 0, false }
