package app

import (
	"log/slog"

	"github.com/mig-controller/mig-controller/internal/httpserver"
)

// fewFiles is the limit of open files below which there is a warning.
const fewFiles = 8192

// warnFewFiles logs a warning if the limit of open files allows only a small fleet: each VM's
// connection is an open file.
func warnFewFiles(limit uint64, log *slog.Logger) {
	if limit < fewFiles {
		log.Warn("the limit of open files is low: raise it with ulimit -Hn, or LimitNOFILE under systemd",
			openFilesKey, limit, vmsKey, max(limit, httpserver.OwnFiles)-httpserver.OwnFiles)
	}
}
