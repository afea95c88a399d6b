package fleet

// NoticeKind is what a Notice is about.
type NoticeKind int

// The kinds of notices.
const (
	// NoticeRegistrationFailed is about the LastFailure of the VM's registration.
	NoticeRegistrationFailed NoticeKind = iota + 1
	// NoticeContested is for a VM that starts too often: several seem to have its id.
	NoticeContested
	// NoticeBooted is for a VM whose agent was started again.
	NoticeBooted
	// NoticeRunnerCrashed is for a VM whose runner has ended with an error.
	NoticeRunnerCrashed
)

// Notice is something about a VM that belongs in the log once it is durable.
type Notice struct {
	Kind NoticeKind
	VM   VM // as it was then
}

func (r *reduction) notice(kind NoticeKind) {
	r.Notices = append(r.Notices, Notice{kind, *r.vm()})
}
