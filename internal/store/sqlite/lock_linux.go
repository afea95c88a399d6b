package sqlite

import (
	"time"

	"golang.org/x/sys/unix"
)

// lockedFile is the file to lock for a database: the database itself. SQLite's locks are of
// another kind, and do not conflict with this one.
func lockedFile(path string) string { return path }

// bornAfter returns how long after other a file was created; zero if unknown.
func bornAfter(path, other string) time.Duration {
	a, b := born(path), born(other)
	if a.IsZero() || b.IsZero() {
		return 0
	}
	return a.Sub(b)
}

// born returns when a file was created; zero if unknown.
func born(path string) time.Time {
	var stat unix.Statx_t
	err := unix.Statx(unix.AT_FDCWD, path, 0, unix.STATX_BTIME, &stat)
	if err != nil || stat.Mask&unix.STATX_BTIME == 0 {
		return time.Time{}
	}
	return time.Unix(stat.Btime.Sec, int64(stat.Btime.Nsec))
}
