package fleet

import "time"

// RegistrationState is how far the VM's runner has come, in this boot, on its
// way to being registered.
type RegistrationState string

// The states of a registration.
const (
	Unregistered RegistrationState = "UNREGISTERED"
	Requested    RegistrationState = "REQUESTED"
	Registered   RegistrationState = "REGISTERED"
	RegFailed    RegistrationState = "FAILED"
)

// Registration is a desired state, kept per boot of a VM: requested once,
// proven by what the agent reports, not repeated after a network drop, repeated
// after a restart.
//
// Nothing on the wire tells a restart from a network drop: both are a new
// session with the same vm_id. What tells them apart is what the agent says
// next, since only a restarted agent has lost its runner.
type Registration struct {
	State RegistrationState `json:"state"`
	// Command is the register_runner of this boot; empty before it is requested.
	Command     CommandID `json:"command,omitempty"`
	RequestedAt time.Time `json:"requested_at,omitzero"`
	ProvenAt    time.Time `json:"proven_at,omitzero"`
	// Epoch is the newest session on which the agent is known to be in this
	// boot. An unconfigured runner on a newer one shows a restart.
	Epoch Epoch `json:"epoch,omitempty"`
}

// RegistrationRequested notes that cmd is to register the VM in this boot.
func (v VM) RegistrationRequested(cmd Command) VM {
	v.Registration = Registration{
		State: Requested, Command: cmd.ID, RequestedAt: cmd.AcceptedAt, Epoch: v.Epoch,
	}
	return v
}

// RegistrationProven notes that the runner is registered, as the agent of the
// VM's newest session says.
func (v VM) RegistrationProven(now time.Time) VM {
	if v.Registration.State != Registered {
		v.Registration.State, v.Registration.ProvenAt = Registered, now
	}
	v.Registration.Epoch = v.Epoch
	return v
}

// RegistrationEnded notes that cmd has ended. It says nothing for any command
// but the one that is to register the VM in this boot.
//
// A success means only that the agent has the configuration. A command that ran
// out of time before it was sent, or unacked on its stream, leaves the VM to be
// registered when it next asks or connects, and so does one that was in an answer to
// vm_started, which not all agents look at; one that was handed to a poll does
// not, since polls are never acked. One that was cancelled does not either: an
// operator did not want it.
func (v VM) RegistrationEnded(cmd Command) VM {
	if v.Registration.State != Requested || v.Registration.Command != cmd.ID {
		return v
	}
	switch cmd.State {
	case Succeeded:
		v.Registration.Epoch = max(v.Registration.Epoch, cmd.Last.Epoch)
	case Expired:
		v.Registration.State = Unregistered
	case TimedOut:
		v.Registration.State = Unregistered
		if cmd.Last.Via == HTTP && !cmd.Last.Started {
			v.Registration.State = RegFailed
		}
	case Failed, Cancelled:
		v.Registration.State = RegFailed
		v.Registration.Epoch = max(v.Registration.Epoch, cmd.Last.Epoch)
	case Pending, Delivered:
	}
	return v
}

// runnerReported draws the conclusions of a runner seen on the newest session.
func (v VM) runnerReported(r Runner, h Heartbeat, registering bool) VM {
	busy := h.Status == StatusJobRunning || h.Status == StatusDraining || h.Status == StatusShuttingDown
	switch {
	case r.Configured:
		return v.RegistrationProven(h.ReceivedAt)
	case registering || v.Registration.State == Unregistered || h.Epoch <= v.Registration.Epoch:
		return v
	case v.Registration.State != Registered && (busy || h.Status == StatusRegistering):
		// The drop came while the agent was registering; it still is.
		v.Registration.Epoch = h.Epoch
		return v
	case busy: // an agent may give its runner up when it drains
		return v
	default:
		return v.rebooted(time.Time{}, h.ReceivedAt)
	}
}

// Started takes the event vm_started. A repetition of the event, or one that
// comes late on the session which registration was requested on, is the same
// boot. registering is as for Heartbeat: a command on its way serves the new
// boot as well.
func (v VM) Started(e Event, registering bool) VM {
	late := e.Via == Stream && v.Registration.State == Requested && v.Registration.Epoch == e.Epoch
	switch {
	case late, !e.SentAt.IsZero() && e.SentAt.Equal(v.StartedAt):
		return v
	case v.StartedAt.IsZero() && v.Registration.State == Unregistered && v.Registration.Command == "":
		v.StartedAt = e.SentAt
		return v
	case registering:
		v.Boot++
		v.StartedAt, v.BootedAt = e.SentAt, e.ReceivedAt
		return v
	default:
		return v.rebooted(e.SentAt, e.ReceivedAt)
	}
}

// rebooted begins a new boot, in which nothing has been registered.
func (v VM) rebooted(startedAt, now time.Time) VM {
	v.Boot++
	v.StartedAt, v.BootedAt = startedAt, now
	v.Runner, v.Job = nil, nil
	v.Registration = Registration{State: Unregistered}
	return v
}
