package httpserver

import "math"

// OwnFiles is about how many files the controller needs for itself.
const OwnFiles = 128

// Crowded returns the number of connections from which on only sources with few get more: nine
// tenths of the limit of open files, minus those that the controller and the clients in its
// process need, but at least half of the limit. It returns 0, which means no limit, when the
// limit of open files is not known.
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
