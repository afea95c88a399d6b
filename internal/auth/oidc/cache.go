package oidc

import (
	"crypto/sha256"
	"sync"
	"time"

	"github.com/mig-controller/mig-controller/internal/auth"
)

// maxCached is how many verified tokens are remembered.
const maxCached = 10_000

// hash identifies a token. The tokens themselves are not kept.
type hash [sha256.Size]byte

func hashOf(token string) hash { return sha256.Sum256([]byte(token)) }

// cache has the principals of verified tokens until these expire. When it is full, tokens that
// have expired are dropped, and otherwise arbitrary ones, which are then verified again. It is
// safe for concurrent use.
type cache struct {
	mu    sync.RWMutex
	known map[hash]auth.Principal
}

func newCache() *cache { return &cache{known: map[hash]auth.Principal{}} }

func (c *cache) get(token hash, now time.Time) (auth.Principal, bool) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	p, known := c.known[token]
	return p, known && now.Before(p.ExpiresAt)
}

func (c *cache) put(token hash, p auth.Principal, now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.known) >= maxCached {
		c.drop(now)
	}
	c.known[token] = p
}

// drop makes room for a tenth of the cache at least, so that it is called rarely.
func (c *cache) drop(now time.Time) {
	for token, p := range c.known {
		if !now.Before(p.ExpiresAt) {
			delete(c.known, token)
		}
	}
	for token := range c.known {
		if len(c.known) <= maxCached-maxCached/10 {
			return
		}
		delete(c.known, token)
	}
}
