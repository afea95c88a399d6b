package dispatch

import (
	"log/slog"

	"github.com/mig-controller/mig-controller/internal/fleet"
)

// trouble is a kind of log line that an agent or a fault can cause without end.
type trouble string

// The kinds that are about one VM.
const (
	troubleConnected  trouble = "connected"
	troubleEnded      trouble = "disconnected"
	troubleEvent      trouble = "event"
	troubleBooted     trouble = "booted"
	troubleNotSent    trouble = "not sent"
	troubleHandedOut  trouble = "token handed out"
	troubleLost       trouble = "report lost"
	troubleRefused    trouble = "refused"
	troubleReported   trouble = "reported"
	troubleSuperseded trouble = "superseded"
	troubleSuspect    trouble = "suspect"
	troubleAck        trouble = "ack"
	troubleContested  trouble = "contested"
	troubleCrashed    trouble = "crashed"
	troubleBeatsLost  trouble = "heartbeats lost"
	troublePassedOver trouble = "passed over"
	troubleThrottled  trouble = "throttled"
)

// The kinds that are about the controller, whatever the VM: what every session
// meets at once is limited together.
const (
	troubleHeld     trouble = "held"
	troubleDelivery trouble = "delivery"
	troubleToken    trouble = "token"
	troubleFailed   trouble = "registration failed"
	troubleStarted  trouble = "started"
	troubleUnended  trouble = "unended"
	troubleJournal  trouble = "journal"
	troubleUnstored trouble = "heartbeats not stored"
	troubleStored   trouble = "heartbeats stored again"
)

// limited returns log for one line of a kind about a VM, or a log that discards it
// when there were too many. The next line has the number of those that were discarded.
func (d *Dispatcher) limited(log *slog.Logger, kind trouble, vm fleet.VMID) *slog.Logger {
	return d.limiter.Limited(log, string(kind), string(vm), d.Clock())
}
