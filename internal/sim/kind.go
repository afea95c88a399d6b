package sim

import (
	"fmt"
	"slices"
	"strings"
)

// Kind says which build of the MIGlet an agent is.
type Kind string

// Three builds that are in the field, the latest first, and one that does all
// that the protocol has.
const (
	// Today is the latest build. It reads commands until register_runner, and
	// never again: it acks that one, answers any other with a failure before it,
	// and leaves what follows unread. It sends a heartbeat with each state
	// change, takes one job, and is spent. What its stream does not take goes
	// over HTTP; its first heartbeats always do.
	Today Kind = "today"
	// Dec2025 is like Today, but sends heartbeats only once its runner is
	// registered, and none that names its state. Until then it is silent.
	Dec2025 Kind = "2025-12"
	// Nov2025 knows only HTTP. It registers its runner with what the answer to
	// vm_started holds; if that lacks the token or the URL, its process exits.
	Nov2025 Kind = "2025-11"
	// Ideal obeys and acks every command at any time, reports job_running, and
	// takes one job after the other.
	Ideal Kind = "ideal"
)

// obeys reports whether agents of this kind execute all commands. These report on
// accepted streams only; builds in the field live on without.
func (k Kind) obeys() bool { return k == Ideal }

// streams reports whether agents of this kind open a stream.
func (k Kind) streams() bool { return k != Nov2025 }

// namesState reports whether heartbeats come in every state, follow each change
// of it at once, and have a miglet_state.
func (k Kind) namesState() bool { return k == Today || k == Ideal }

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
