//go:build !linux

package sqlite

// lockedFile is the file that stands for a database when it is locked: one beside it,
// since elsewhere than on Linux a lock of the database itself keeps out SQLite as well.
func lockedFile(path string) string { return resolved(path) + ".lock" }
