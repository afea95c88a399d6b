package maintenance

import (
	"log/slog"
	"strconv"
	"time"

	"github.com/mig-controller/mig-controller/internal/fleet"
	"github.com/mig-controller/mig-controller/internal/logkey"
)

// writeNotice writes the log line of a notice. When a fault affects the whole fleet, such as
// an expired token, only some of the lines are written.
func (l *commandLog) writeNotice(n fleet.Notice) {
	v := n.VM
	log := l.log.With(logkey.VM, v.ID)
	switch n.Kind {
	case fleet.NoticeRegistrationFailed:
		g := v.Registration
		l.limited(log, n.Kind, "").Warn("registration failed", logkey.Command, g.LastFailure.Command,
			logkey.Reason, g.LastFailure.Reason, keyFailures, g.Failures, keyNextAttempt, g.Next().Format(time.RFC3339),
			logkey.Hint, "is the token expired, or the runner URL wrong? the agent's log on the VM has what config.sh printed")
	case fleet.NoticeContested:
		l.limited(log, n.Kind, v.ID).Warn("VM starts too often: not registered for now",
			logkey.Hint, "several VMs may have this id, such as clones of one image")
	case fleet.NoticeBooted:
		l.limited(log, n.Kind, v.ID).Info("agent was started again", keyBoot, v.Boot)
	case fleet.NoticeRunnerCrashed:
		l.limited(log, n.Kind, v.ID).Warn("runner crashed", logkey.Hint, "its agent usually exits, and is registered again; its log on the VM has the exit status")
	}
}

// limited returns log for one line of a kind about a VM, or a log that discards the line when
// there were too many.
func (l *commandLog) limited(log *slog.Logger, kind fleet.NoticeKind, vm fleet.VMID) *slog.Logger {
	return l.limiter.Limited(log, strconv.Itoa(int(kind)), string(vm), l.clock())
}
