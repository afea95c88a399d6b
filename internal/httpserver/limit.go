package httpserver

import "math"

// OwnFiles is about how many files the controller needs for itself.
const OwnFiles = 128

// Crowded returns how many connections there may be before the last tenth of the open
// files is kept for sources that have few: as many as are left of the others when the
// controller and the clients in its own process have what they need, but at least half of
// all. It is 0, which is without limit, when the limit of open files is not known.
func Crowded(ownClients int) int {
	limit, known := OpenFiles()
	return crowdedAt(limit, known, ownClients)
}

func crowdedAt(limit uint64, known bool, ownClients int) int {
	if !known || limit > math.MaxInt32 {
		return 0
	}
	files := int(limit)
	return max(files-files/10-OwnFiles-ownClients, files/2)
}
