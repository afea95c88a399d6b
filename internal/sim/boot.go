package sim

import "github.com/mig-controller/mig-controller/gen/go/miglet/commands"

// The miglet_state values of the contract that an agent goes through.
const (
	stateInitializing = "initializing"
	stateConnecting   = "connecting"
	stateReady        = "ready"
	stateRegistering  = "registering_runner"
	stateIdle         = "idle"
	stateJobRunning   = "job_running"
	stateDraining     = "draining"
	stateShuttingDown = "shutting_down"
	stateError        = "error"
)

// boot is the state of an agent's process. It outlives streams and TCP connections; a
// restart loses it.
type boot struct {
	state       string
	registering bool // register_runner arrived, the runner is not registered yet
	configured  bool // the runner is registered
	proven      bool // the controller knows that it is registered
	drained     bool // no more jobs in this boot
	spent       bool // the runner has run its only job
	falseStart  bool // vm_started was sent during a job
	unread      int  // commands in the buffer that the agent will not read
	job         *commands.JobInfo
	labels      []string
	runnerURL   string
	runnerGroup string

	agenda  agenda
	seen    recentIDs
	reopens int // remaining hot reconnects
	outbox  outbox
}

// resting is the state of an idle agent.
func (b *boot) resting() string {
	switch {
	case b.configured:
		return stateIdle
	case b.registering:
		return stateRegistering
	default:
		return stateReady
	}
}

// recentLimit bounds the number of command ids that a boot remembers.
const recentLimit = 1024

// recentIDs remembers the last recentLimit command ids.
type recentIDs struct {
	known map[string]struct{}
	ring  []string
	next  int
}

// add adds id and reports whether it was new.
func (r *recentIDs) add(id string) bool {
	if _, ok := r.known[id]; ok {
		return false
	}
	if r.known == nil {
		r.known = make(map[string]struct{})
	}
	if len(r.ring) < recentLimit {
		r.ring = append(r.ring, id)
	} else {
		delete(r.known, r.ring[r.next])
		r.ring[r.next] = id
		r.next = (r.next + 1) % recentLimit
	}
	r.known[id] = struct{}{}
	return true
}
