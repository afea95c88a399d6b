package engine

import (
	"context"
	"time"
)

// Checkpoint writes the rows that the engine's loop would write at this time.
func (e *Engine) Checkpoint(ctx context.Context, now time.Time) error {
	return e.checkpoint(ctx, now.Add(-2*rowEvery))
}
