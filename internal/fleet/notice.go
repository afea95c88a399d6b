package fleet

// NoticeKind is the subject of a Notice.
type NoticeKind int

// The kinds of notices.
const (
	// NoticeRegistrationFailed reports the LastFailure of the VM's registration.
	NoticeRegistrationFailed NoticeKind = iota + 1
	// NoticeContested reports a VM that starts too often: several VMs seem to share its id.
	NoticeContested
	// NoticeBooted reports a VM whose agent was restarted.
	NoticeBooted
	// NoticeRunnerCrashed reports a VM whose runner has ended with an error.
	NoticeRunnerCrashed
)

// Notice is a fact about a VM to be logged once it is durable.
type Notice struct {
	Kind NoticeKind
	VM   VM // at that time
}

func (r *reduction) notice(kind NoticeKind) {
	r.Notices = append(r.Notices, Notice{kind, *r.vm()})
}
