package dispatch

import (
	"time"

	"github.com/mig-controller/mig-controller/internal/fleet"
)

// writeNotice writes the log line of a notice. When a whole fleet meets the same fault,
// as with an expired token, some of the lines are written.
func (d *Dispatcher) writeNotice(n fleet.Notice) {
	v := n.VM
	log := d.Log.With(keyVM, v.ID)
	switch n.Kind {
	case fleet.NoticeRegistrationFailed:
		g := v.Registration
		d.limited(log, troubleFailed, "").Warn("registration failed", keyCommand, g.LastFailure.Command,
			keyReason, g.LastFailure.Reason, keyFailures, g.Failures, keyNextAttempt, g.Next().Format(time.RFC3339),
			keyHint, "is the token expired, or the runner URL wrong? the agent's log on the VM has what config.sh printed")
	case fleet.NoticeContested:
		d.limited(log, troubleContested, v.ID).Warn("VM starts too often: not registered for now",
			keyHint, "several VMs may have this id, such as clones of one image")
	case fleet.NoticeBooted:
		d.limited(log, troubleBooted, v.ID).Info("agent was started again", keyBoot, v.Boot)
	case fleet.NoticeRunnerCrashed:
		d.limited(log, troubleCrashed, v.ID).Warn("runner crashed", keyHint, "its agent exits as a rule, and is registered again; its log on the VM has the exit status")
	}
}
