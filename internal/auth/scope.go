package auth

import (
	"slices"
	"strings"
)

// Scope is the pools whose VMs a principal sees and may act on. The zero value has none.
type Scope struct {
	all   bool
	pools []string // sorted, without duplicates
}

// AllPools returns the scope of every VM, including those without a pool and those never seen.
func AllPools() Scope { return Scope{all: true} }

// OnlyPools returns the scope of the VMs that are in one of the pools at the moment.
func OnlyPools(pools ...string) Scope {
	pools = slices.Clone(pools)
	slices.Sort(pools)
	return Scope{pools: slices.Compact(pools)}
}

// All reports whether the scope has all pools.
func (s Scope) All() bool { return s.all }

// Pools returns the pools, sorted; nil if the scope has all of them.
func (s Scope) Pools() []string { return slices.Clone(s.pools) }

// Has reports whether the scope has the VMs of a pool. A VM without a pool is only in the
// scope of all pools.
func (s Scope) Has(pool string) bool {
	_, found := slices.BinarySearch(s.pools, pool)
	return s.all || found && pool != ""
}

// Within reports whether the other scope has everything that this one has.
func (s Scope) Within(other Scope) bool {
	return other.all || !s.all && !slices.ContainsFunc(s.pools, func(p string) bool { return !other.Has(p) })
}

// String returns the pools, separated by commas, or * for all.
func (s Scope) String() string {
	if s.all {
		return "*"
	}
	return strings.Join(s.pools, ",")
}
