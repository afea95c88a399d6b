// Package logkey owns the keys of log attributes that more than one package writes, so
// that a thing has one name in all lines.
package logkey

// The keys. A key that one package alone writes is a constant of that package, and the
// number of suppressed lines is loglimit's.
const (
	Code      = "code" // of an answer, as Connect names it
	Command   = "command_id"
	Count     = "count"
	Epoch     = "session_epoch"
	Error     = "error"
	EventType = "event_type"
	Hint      = "hint"  // what to do, or what may be the reason
	Panic     = "panic" // what a function panicked with
	Path      = "path"
	Reason    = "reason"
	Size      = "size_bytes"
	Stack     = "stack"
	VM        = "vm_id"
	Via       = "via" // the route of a report or delivery
)
