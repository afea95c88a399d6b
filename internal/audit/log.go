package audit

import (
	"context"
	"log/slog"

	"github.com/mig-controller/mig-controller/internal/logkey"
)

// The keys of log attributes.
const (
	keyPrincipal = "principal"
	keyMethod    = "method"
	keyToken     = "token_id"
	keyAddress   = "address"
	keyAction    = "action"
	keyDetail    = "detail"
	keyOutcome   = "outcome"
)

// Log logs an event: a line with those of its fields that are known.
func Log(ctx context.Context, log *slog.Logger, message string, e Event) {
	attributes := []slog.Attr{
		slog.String(keyPrincipal, e.By.Name), slog.String(keyMethod, string(e.By.Method)), slog.String(keyToken, e.By.TokenID),
		slog.String(keyAddress, e.Address), slog.String(keyAction, e.Action), slog.String(logkey.VM, e.VM),
		slog.String(logkey.Command, e.Command), slog.String(keyDetail, e.Detail), slog.String(keyOutcome, e.Outcome),
		slog.String(logkey.Error, e.Error), slog.String(logkey.Reason, e.Reason),
	}
	var known []slog.Attr
	for _, a := range attributes {
		if a.Value.String() != "" {
			known = append(known, a)
		}
	}
	log.LogAttrs(ctx, slog.LevelInfo, message, known...) //nolint:sloglint // the callers have constants
}
