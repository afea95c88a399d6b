//go:build !linux

package sqlite

import "time"

// lockedFile is the file that stands for a database when it is locked: one beside it,
// since elsewhere than on Linux a lock of the database itself keeps out SQLite as well.
func lockedFile(path string) string { return resolved(path) + ".lock" }

// bornAfter is zero: when a file was made is not known.
func bornAfter(string, string) time.Duration { return 0 }
