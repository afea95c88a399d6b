package powerloss

import "math/rand/v2"

// Keep chooses which unsynced writes have reached the disk. It is called for the
// sectors of each write in the order in which they were written, with the number of
// the sector within its write, and returns whether it is there. A truncation counts as
// a write of one sector, and so does a change of the directory; after the first change
// of the directory that is lost, all later ones are. Nil keeps nothing.
type Keep func(sector int) bool

// None loses everything since the last sync, as when the power fails before the kernel
// begins to write.
func None(int) bool { return false }

// All loses nothing, as when the kernel has just written everything.
func All(int) bool { return true }

// Writes keeps a random subset of the writes, each of them whole. How many it keeps
// is random as well. It is not safe for concurrent use.
func Writes(r *rand.Rand) Keep {
	share, kept := r.Float64(), false
	return func(sector int) bool {
		if sector == 0 {
			kept = r.Float64() < share
		}
		return kept
	}
}

// Sectors keeps a random subset of the sectors: writes are torn. How many it keeps is
// random as well. It is not safe for concurrent use.
func Sectors(r *rand.Rand) Keep {
	share := r.Float64()
	return func(int) bool { return r.Float64() < share }
}

// Some returns one of None, All, Writes and Sectors, at random.
func Some(r *rand.Rand) Keep {
	return []Keep{None, All, Writes(r), Sectors(r)}[r.IntN(4)]
}

func (k Keep) has(sector int) bool { return k != nil && k(sector) }

// of returns what is kept of pieces.
func (k Keep) of(pieces []piece) []piece {
	var kept []piece
	for _, p := range pieces {
		for i, s := range p.sectors() {
			if k.has(i) {
				kept = append(kept, s)
			}
		}
	}
	return kept
}
