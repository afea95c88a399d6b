package fleet

import "math"

// maxPercentGap is how many percentage points a reported percentage may differ from the one
// computed from the bytes. df and libraries that count like it leave out the blocks
// reserved for root, by default 5 % of the disk: a disk that is full for all other users is
// used to 95 %. Rounding and two readings at different times add less than that.
const maxPercentGap = 5

// UsedPercent returns the percentage of total that is in use: the reported one if it is
// above 0, at most 100, and within maxPercentGap of the one computed from the bytes, and the
// computed one otherwise. If the bytes are not usable it returns the reported one, even if
// that is NaN or infinite. They are usable if both are positive and used is not more than
// total: no VM uses none of its memory or disk, so 0 means not reported.
func UsedPercent(reported float64, used, total int64) float64 {
	if used <= 0 || used > total {
		return reported
	}
	computed := float64(used) / float64(total) * 100
	if reported > 0 && reported <= 100 && math.Abs(reported-computed) <= maxPercentGap {
		return reported
	}
	return computed
}
