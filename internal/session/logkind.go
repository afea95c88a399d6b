package session

import (
	"log/slog"

	"github.com/mig-controller/mig-controller/internal/fleet"
)

// logKind is a kind of log line that an agent or a fault can cause any number of times.
type logKind string

// The kinds that are limited per VM.
const (
	logConnected      logKind = "connected"
	logDisconnected   logKind = "disconnected"
	logEvent          logKind = "event"
	logNotSent        logKind = "not sent"
	logTokenIssued    logKind = "token issued"
	logReportLost     logKind = "report lost"
	logRefused        logKind = "refused"
	logReported       logKind = "reported"
	logSuperseded     logKind = "superseded"
	logSuspect        logKind = "suspect"
	logAck            logKind = "ack"
	logHeartbeatsLost logKind = "heartbeats lost"
	logThrottled      logKind = "throttled"
)

// The kinds that are limited for all VMs together: a fault of the controller affects every
// session at once.
const (
	logStoreUnavailable    logKind = "store unavailable"
	logDelivery            logKind = "delivery"
	logToken               logKind = "token"
	logStarted             logKind = "started"
	logEndNotRecorded      logKind = "end not recorded"
	logHeartbeatsNotStored logKind = "heartbeats not stored"
	logHeartbeatsStored    logKind = "heartbeats stored again"
)

// limited returns log for one line of a kind about a VM, or a log that discards the line when
// there were too many. The next line that is written has the number of discarded ones.
func (r *Registry) limited(log *slog.Logger, kind logKind, vm fleet.VMID) *slog.Logger {
	return r.limiter.Limited(log, string(kind), string(vm), r.Clock())
}
