package metric

import (
	"strings"
	"sync"
)

// Pools bounds the values of the label for pools, which agents choose: the first pools that
// are seen keep their names, and all others are Other. A VM without a pool has the empty
// value. It is safe for concurrent use.
type Pools struct {
	limit int
	mu    sync.RWMutex
	named map[string]bool
}

// NewPools returns Pools with at most limit names.
func NewPools(limit int) *Pools { return &Pools{limit: limit, named: map[string]bool{}} }

// Value returns the value of the label for a pool.
func (p *Pools) Value(pool string) string {
	if pool == "" {
		return ""
	}
	pool = strings.ToValidUTF8(pool, "?")
	p.mu.RLock()
	known := p.named[pool]
	p.mu.RUnlock()
	if known || p.add(pool) {
		return pool
	}
	return Other
}

// add names a pool and returns true, unless there are as many as allowed.
func (p *Pools) add(pool string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.named) >= p.limit && !p.named[pool] {
		return false
	}
	p.named[pool] = true
	return true
}
