package fleet

import (
	"crypto/rand"
	"strings"
)

// VMID identifies a VM.
type VMID string

// CommandID identifies a command in the fleet. If the caller gives it, it is the idempotency
// key.
type CommandID string

// Epoch numbers the sessions of one VM; the highest is the newest. Zero means no session.
type Epoch int64

// MaxIDLength is the maximum number of characters of an id.
const MaxIDLength = 128

// idRule describes a valid id. No id can begin with `_` or `.`, so that ids never collide
// with the controller's own names and are never relative paths.
const idRule = "must be 1 to 128 characters of A-Z a-z 0-9 . _ -, the first a letter or digit"

// CheckID returns a *FieldError when s is not an id.
func CheckID(field, s string) error {
	if s == "" || len(s) > MaxIDLength || !alphanumeric(s[0]) {
		return Invalid(field, idRule)
	}
	for i := range len(s) {
		if c := s[i]; !alphanumeric(c) && c != '.' && c != '_' && c != '-' {
			return Invalid(field, idRule)
		}
	}
	return nil
}

// CheckOptionalID is CheckID for a field that may be empty.
func CheckOptionalID(field, s string) error {
	if s == "" {
		return nil
	}
	if err := CheckID(field, s); err != nil {
		return Invalid(field, idRule+", or empty")
	}
	return nil
}

// ParseVMID returns s as a VMID, or a *FieldError for the field vm_id.
func ParseVMID(s string) (VMID, error) {
	if err := CheckID("vm_id", s); err != nil {
		return "", err
	}
	return VMID(s), nil
}

// NewCommandID returns a new unique id for an operator's command.
func NewCommandID() CommandID { return newID("cmd-") }

// NewRegistrationID returns a new unique id for a register_runner of the controller. It has
// the type of Rules.NewID and ignores the VM.
func NewRegistrationID(VMID) CommandID { return newID("reg-") }

func newID(prefix string) CommandID { return CommandID(prefix + strings.ToLower(rand.Text())) }

func alphanumeric(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
}
