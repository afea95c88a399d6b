package session

import (
	"log/slog"

	"github.com/mig-controller/mig-controller/internal/fleet"
)

// trouble is a kind of log line that an agent or a fault can cause any number of times.
type trouble string

// The kinds that are limited per VM.
const (
	troubleConnected  trouble = "connected"
	troubleEnded      trouble = "disconnected"
	troubleEvent      trouble = "event"
	troubleNotSent    trouble = "not sent"
	troubleHandedOut  trouble = "token handed out"
	troubleLost       trouble = "report lost"
	troubleRefused    trouble = "refused"
	troubleReported   trouble = "reported"
	troubleSuperseded trouble = "superseded"
	troubleSuspect    trouble = "suspect"
	troubleAck        trouble = "ack"
	troubleBeatsLost  trouble = "heartbeats lost"
	troubleThrottled  trouble = "throttled"
)

// The kinds that are limited for all VMs together: a fault of the controller affects every
// session at once.
const (
	troubleHeld     trouble = "held"
	troubleDelivery trouble = "delivery"
	troubleToken    trouble = "token"
	troubleStarted  trouble = "started"
	troubleUnended  trouble = "unended"
	troubleUnstored trouble = "heartbeats not stored"
	troubleStored   trouble = "heartbeats stored again"
)

// limited returns log for one line of a kind about a VM, or a log that discards the line when
// there were too many. The next line that is written has the number of discarded ones.
func (r *Registry) limited(log *slog.Logger, kind trouble, vm fleet.VMID) *slog.Logger {
	return r.limiter.Limited(log, string(kind), string(vm), r.Clock())
}
