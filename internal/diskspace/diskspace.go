// Package diskspace owns the measurement of file systems.
package diskspace

// Space is how many bytes of a file system are free for this process, and its size.
type Space struct{ Free, Total uint64 }

// Measure returns the space of the file system that path is on. It returns
// errors.ErrUnsupported on systems where that is not known.
func Measure(path string) (Space, error) { return measure(path) }
