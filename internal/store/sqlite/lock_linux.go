package sqlite

// lockedFile is the file that stands for a database when it is locked: the database
// itself. SQLite's locks are of another kind, and do not conflict with this one.
func lockedFile(path string) string { return path }
