package app

import (
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"strings"
)

// stateDir is the controller's own directory within the data directory. No VM
// can have its name: ids do not begin with `_`.
const stateDir = "_state"

// DatabasePath returns the SQLite file that holds the store, or an *OptionError.
func (o Options) DatabasePath() (string, error) {
	const rule = "must be a path, file:PATH or sqlite:///PATH"
	scheme, rest, hasScheme := strings.Cut(o.DatabaseURL, ":")
	switch {
	case o.DatabaseURL == "":
		return filepath.Join(o.DataDir, stateDir, "controller.db"), nil
	case strings.Contains(o.DatabaseURL, ":memory:"):
		return "", o.invalid("database-url", "must name a file: what is kept in memory alone does not survive a crash")
	case !hasScheme || strings.ContainsRune(scheme, filepath.Separator):
		return o.DatabaseURL, nil
	case scheme == "postgres" || scheme == "postgresql":
		return "", o.invalid("database-url", "%s: only SQLite is supported in this version", rule)
	case scheme != "sqlite" && scheme != "file":
		return "", o.invalid("database-url", rule)
	case strings.ContainsAny(rest, "?#"):
		return "", o.invalid("database-url", "must be without parameters: the controller sets its own")
	}
	if after, isURL := strings.CutPrefix(rest, "//"); isURL {
		if !strings.HasPrefix(after, "/") {
			return "", o.invalid("database-url", "must have three slashes before its path, as in sqlite:///var/lib/controller.db")
		}
		rest = after
	}
	path, err := url.PathUnescape(rest)
	if err != nil || path == "" || path == "/" {
		return "", o.invalid("database-url", rule)
	}
	return path, nil
}

// warnEmptyDatabase logs a warning when the database is new or empty and yet the data
// directory has files of VMs: the database may have been lost. It must be called before
// the database is opened.
func warnEmptyDatabase(path, dataDir string, log *slog.Logger) {
	if info, err := os.Stat(path); err == nil && info.Size() > 0 {
		return
	}
	if hasVMs(dataDir) {
		log.Warn("the database is empty, and yet the data directory has files of VMs: is it the right database?",
			databaseKey, absolute(path), dataDirKey, absolute(dataDir))
	}
}

// hasVMs reports whether a data directory has the directory of a VM.
func hasVMs(dataDir string) bool {
	dir, err := os.Open(dataDir)
	if err != nil {
		return false
	}
	defer dir.Close() //nolint:errcheck // it was only read
	for {
		entries, err := dir.ReadDir(64)
		for _, entry := range entries {
			if entry.IsDir() && !strings.HasPrefix(entry.Name(), "_") && !strings.HasPrefix(entry.Name(), ".") {
				return true
			}
		}
		if err != nil { // io.EOF, as a rule
			return false
		}
	}
}
