// Package logkey owns the keys of log attributes that more than one package writes, so that
// each has the same name in all lines.
package logkey

// The keys. A key that only one package writes is a constant of that package; loglimit has the
// key for suppressed lines.
const (
	Code      = "code" // Connect's name of a code
	Command   = "command_id"
	Count     = "count"
	Epoch     = "session_epoch"
	Error     = "error"
	EventType = "event_type"
	Hint      = "hint"  // what to do, or a possible reason
	Panic     = "panic" // the value of a panic
	Path      = "path"
	Peer      = "peer" // the address of the other end of a connection: of a proxy, if there is one
	Reason    = "reason"
	Request   = "request_id"
	Session   = "session_id"
	Size      = "size_bytes"
	Span      = "span_id"
	Stack     = "stack"
	Trace     = "trace_id"
	VM        = "vm_id"
	Via       = "via" // the fleet.Route of a report or delivery
)
