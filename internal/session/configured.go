package session

import (
	"context"
	"log/slog"
	"time"

	"github.com/mig-controller/mig-controller/internal/fleet"
	"github.com/mig-controller/mig-controller/internal/logkey"
)

// RunnersConfigured records that the runner configuration, such as the token, has changed: VMs
// whose registration has failed no longer wait for their next attempt. VMs that are not
// connected are registered when they connect or poll.
func (r *Registry) RunnersConfigured(ctx context.Context) {
	r.configuredAt.Store(r.Clock().UnixNano())
	for _, s := range r.sessions.all() {
		state, err := r.Engine.State(ctx, s.vm)
		if err != nil {
			r.logNotRetried(ctx, s.log, err)
			continue
		}
		r.retryOutdated(ctx, s.log, state.VM)
	}
}

// retryOutdated registers the VM at once if it waits for its next attempt although the
// runner configuration has changed since the last one failed.
func (r *Registry) retryOutdated(ctx context.Context, log *slog.Logger, v fleet.VM) {
	if !r.outdated(v) {
		return
	}
	if err := r.retry(ctx, v); err != nil {
		r.logNotRetried(ctx, log, err)
	}
}

func (r *Registry) logNotRetried(ctx context.Context, log *slog.Logger, err error) {
	if ctx.Err() == nil {
		r.limited(log, logDelivery, "").Warn("registration not retried at once", logkey.Error, err)
	}
}

// outdated reports whether the VM waits for its next attempt although the runner
// configuration has changed since the last one failed.
func (r *Registry) outdated(v fleet.VM) bool {
	return v.Registration.Delayed(r.Clock()) && v.Registration.LastFailure.At.Before(r.lastConfigured())
}

func (r *Registry) lastConfigured() time.Time { return time.Unix(0, r.configuredAt.Load()).UTC() }

// retry makes the next attempt due at once.
func (r *Registry) retry(ctx context.Context, v fleet.VM) error {
	_, err := r.Engine.Apply(ctx, fleet.RunnersConfigured{VM: v.ID, At: r.lastConfigured()}, r.Clock())
	return err
}
