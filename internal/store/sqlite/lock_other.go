//go:build !linux

package sqlite

import "time"

// lockedFile is the file to lock for a database: one next to it, since on systems other
// than Linux a lock on the database itself would block SQLite as well.
func lockedFile(path string) string { return resolved(path) + ".lock" }

// bornAfter is zero: the creation time is unknown.
func bornAfter(string, string) time.Duration { return 0 }
