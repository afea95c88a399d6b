package config

import (
	"net/url"
	"path/filepath"
	"strings"
)

// ControlSocket returns the path of the control socket of a data directory.
func ControlSocket(dataDir string) string { return filepath.Join(dataDir, StateDir, "control.sock") }

// StateDir is the controller's own directory within the data directory. No VM
// can have its name: ids do not begin with `_`.
const StateDir = "_state"

// DatabasePath returns the SQLite file that holds the store, or an *OptionError.
func (o Options) DatabasePath() (string, error) {
	const rule = "must be a path, file:PATH or sqlite:///PATH"
	scheme, rest, hasScheme := strings.Cut(o.DatabaseURL, ":")
	switch {
	case o.DatabaseURL == "":
		return filepath.Join(o.DataDir, StateDir, "controller.db"), nil
	case strings.Contains(o.DatabaseURL, ":memory:"):
		return "", o.invalid("database-url", "must name a file: an in-memory database does not survive a crash")
	case !hasScheme || strings.ContainsRune(scheme, filepath.Separator):
		return o.DatabaseURL, nil
	case scheme == "postgres" || scheme == "postgresql":
		return "", o.invalid("database-url", "%s: only SQLite is supported in this version", rule)
	case scheme != "sqlite" && scheme != "file":
		return "", o.invalid("database-url", rule)
	case strings.ContainsAny(rest, "?#"):
		return "", o.invalid("database-url", "must not have parameters: the controller sets its own")
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
