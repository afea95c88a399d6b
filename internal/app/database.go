package app

import (
	"log/slog"
	"os"
	"strings"
)

// warnEmptyDatabase logs a warning if the database is new or empty although the data directory
// has files of VMs: the database may have been lost. It must be called before the database is
// opened.
func warnEmptyDatabase(path, dataDir string, log *slog.Logger) {
	if info, err := os.Stat(path); err == nil && info.Size() > 0 {
		return
	}
	if hasVMs(dataDir) {
		log.Warn("the database is empty although the data directory has files of VMs: is it the right database?",
			databaseKey, absolute(path), dataDirKey, absolute(dataDir))
	}
}

// hasVMs reports whether a data directory has a directory of a VM.
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
		if err != nil { // usually io.EOF
			return false
		}
	}
}
