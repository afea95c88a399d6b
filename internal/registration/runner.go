// Package registration owns how a VM gets its runner configuration: the source of the
// registration token, and the URL, the group and the labels.
//
// A token exists only between its source and the agent. It is minted at delivery; this
// package never stores it, logs it, or puts it into an error.
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
// Token is a secret, and ExpiresAt a guess: a Runner that is printed, logged or marshalled
// shows everything but these two. There is one exception: within another printed value it
// must not be in an unexported field, for which fmt calls no methods.
type Runner struct {
	Token string
	// ExpiresAt is when the token is assumed to expire.
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

// LogValue returns the text of String.
func (r Runner) LogValue() slog.Value { return slog.StringValue(r.String()) }

// MarshalJSON returns the runner as an object, without its token.
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
