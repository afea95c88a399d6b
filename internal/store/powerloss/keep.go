package powerloss

import "math/rand/v2"

// Keep chooses which unsynced writes have reached the disk. It is called for the sectors of
// each write in the order in which they were written, with the number of the sector within
// its write, and returns whether the sector survives. A truncation counts as a write of one
// sector, and so does a directory change; after the first lost directory change, all later
// ones are lost. Nil keeps nothing.
type Keep func(sector int) bool

// None loses everything since the last sync, as if the power fails before the kernel writes
// anything.
func None(int) bool { return false }

// All loses nothing, as if the kernel has just written everything.
func All(int) bool { return true }

// Writes keeps a random number of random writes, each whole. It is not safe for concurrent
// use.
func Writes(r *rand.Rand) Keep {
	share, kept := r.Float64(), false
	return func(sector int) bool {
		if sector == 0 {
			kept = r.Float64() < share
		}
		return kept
	}
}

// Sectors keeps a random number of random sectors: writes are torn. It is not safe for
// concurrent use.
func Sectors(r *rand.Rand) Keep {
	share := r.Float64()
	return func(int) bool { return r.Float64() < share }
}

// Some returns one of None, All, Writes and Sectors at random.
func Some(r *rand.Rand) Keep {
	return []Keep{None, All, Writes(r), Sectors(r)}[r.IntN(4)]
}

func (k Keep) has(sector int) bool { return k != nil && k(sector) }

// of returns the surviving part of pieces.
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
