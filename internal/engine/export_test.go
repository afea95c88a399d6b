package engine

import (
	"context"
	"time"
)

// Checkpoint writes the rows that lack something and are as old as the engine lets
// them be.
func (e *Engine) Checkpoint(ctx context.Context, now time.Time) error {
	return e.checkpoint(ctx, now.Add(-2*rowEvery))
}
