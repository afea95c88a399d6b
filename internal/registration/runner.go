// Package registration owns how a VM gets its runner configuration: where the
// registration token comes from, and the URL, the group and the labels that go
// with it.
//
// A token exists only between its source and the agent. It is minted when it is
// sent; nothing here stores it, logs it, or puts it into an error.
package registration

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"time"
)

// redacted is what is printed in place of a token.
const redacted = "[redacted]"

// Runner is what an agent needs to register its runner.
//
// Token is a secret, and ExpiresAt a guess: printed, logged or marshalled, a Runner
// shows everything but these two. The one gap: within a value that is printed, it must
// not sit in an unexported field, where fmt calls no methods.
type Runner struct {
	Token string
	// ExpiresAt is when the token is taken to stop working.
	ExpiresAt time.Time
	URL       string
	Group     string
	Labels    []string
}

// String describes the runner without its token.
func (r Runner) String() string {
	return fmt.Sprintf("runner at %s, group %q, labels %q, token %s", r.URL, r.Group, r.Labels, r.shownToken())
}

// Format prints String for every verb.
func (r Runner) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, r.String()) }

// LogValue is the text of String.
func (r Runner) LogValue() slog.Value { return slog.StringValue(r.String()) }

// MarshalJSON is the runner as an object, without its token.
func (r Runner) MarshalJSON() ([]byte, error) {
	return json.Marshal(map[string]any{
		"url": r.URL, "group": r.Group, "labels": r.Labels, "token": r.shownToken(),
	})
}

func (r Runner) shownToken() string {
	if r.Token == "" {
		return "none"
	}
	return redacted
}
