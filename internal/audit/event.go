// Package audit owns the record of requested changes: who requested what, from where, why, and
// with which outcome.
package audit

import (
	"time"

	"github.com/mig-controller/mig-controller/internal/auth"
)

// OK is the outcome of a change that was made. Others are codes of errors.
const OK = "ok"

// Event is a change that was requested, or a number of requests that were rejected.
type Event struct { //nolint:recvcheck // encoding/json needs both kinds
	// Seq orders the events; the store assigns it.
	Seq int64
	At  time.Time
	// By is the principal. Of rejections it has what is known.
	By auth.Principal
	// Address is where the request came from; empty for the control socket.
	Address string
	// Action is the method, such as AdminService/SendCommand.
	Action string
	// VM and Command are what the change concerns; Detail is what else identifies it.
	VM, Command, Detail string
	// Outcome is OK or a code, and Error is the text of the error.
	Outcome, Error string
	// Reason is why the caller requested it.
	Reason    string
	RequestID string
	// Count is how many rejections the event stands for; 1 for a change.
	Count int64
}
