package sim

import (
	"fmt"
	"slices"
	"strings"
)

// Kind is the build of the MIGlet that an agent simulates.
type Kind string

// Three builds in the field, the latest first, and one that implements the whole protocol.
const (
	// Today is the latest build. It reads commands only until register_runner: it acks that
	// one, answers any earlier one with a failure, and leaves later ones unread. It sends a
	// heartbeat with each state change, takes one job, and is spent. What cannot be sent on
	// the stream is sent over HTTP, and so are its first heartbeats.
	Today Kind = "today"
	// Dec2025 is like Today, but sends heartbeats only once its runner is registered, and
	// without its state. Until then it sends nothing.
	Dec2025 Kind = "2025-12"
	// Nov2025 uses only HTTP. It registers its runner with the answer to vm_started; if
	// that lacks the token or the URL, its process exits.
	Nov2025 Kind = "2025-11"
	// Ideal executes and acks every command at any time, reports job_running, and takes one
	// job after the other.
	Ideal Kind = "ideal"
)

// executes reports whether agents of this kind execute all commands. These report on
// accepted streams only; builds in the field run without one too.
func (k Kind) executes() bool { return k == Ideal }

// streams reports whether agents of this kind open a stream.
func (k Kind) streams() bool { return k != Nov2025 }

// reportsState reports whether heartbeats are sent in every state, follow each state change
// immediately, and contain a miglet_state.
func (k Kind) reportsState() bool { return k == Today || k == Ideal }

func (k Kind) validate() error {
	kinds := []Kind{Today, Dec2025, Nov2025, Ideal}
	if slices.Contains(kinds, k) {
		return nil
	}
	names := make([]string, 0, len(kinds))
	for _, known := range kinds {
		names = append(names, string(known))
	}
	last := len(names) - 1
	return &ConfigError{"Kind", fmt.Sprintf("must be %s or %s, not %q", strings.Join(names[:last], ", "), names[last], k)}
}
