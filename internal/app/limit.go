package app

import (
	"log/slog"
	"math"
)

// fewFiles is the limit of open files below which a fleet soon hits it.
const fewFiles = 8192

// ownFiles is about how many files the controller needs for itself.
const ownFiles = 128

// warnFewFiles warns when the limit of open files allows a small fleet only:
// each VM's connection is an open file.
func warnFewFiles(limit uint64, log *slog.Logger) {
	if limit < fewFiles {
		log.Warn("the limit of open files is low: raise it with ulimit -Hn, or LimitNOFILE under systemd",
			openFilesKey, limit, vmsKey, max(limit, ownFiles)-ownFiles)
	}
}

// crowdedAt returns how many connections there may be before the last tenth of the open
// files is kept for sources that have few: as many as are left of the others when the
// controller and the agents it simulates have what they need, but at least half of all. It
// is 0, which is without limit, when the limit of open files is not known.
func crowdedAt(limit uint64, known bool, simulated int) int {
	if !known || limit > math.MaxInt32 {
		return 0
	}
	files := int(limit)
	return max(files-files/10-ownFiles-simulated, files/2)
}
