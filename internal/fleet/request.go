package fleet

import (
	"cmp"
	"time"
	"unicode/utf8"
)

// Limits on the size and lifetime of a command.
const (
	MaxParams      = 100
	MaxParamLength = 16 << 10
	MaxTTL         = 30 * 24 * time.Hour
	MaxAckTimeout  = 24 * time.Hour
	// MaxDeliveriesLimit is the upper bound of Command.MaxDeliveries.
	MaxDeliveriesLimit = 100
)

// maxUnixSeconds is the last second of the year 9999, the latest that the text form of a
// time can represent.
const maxUnixSeconds = 253402300799

// CommandDefaults are the limits of a command whose sender specified none.
type CommandDefaults struct {
	TTL           time.Duration
	AckTimeout    time.Duration
	MaxDeliveries int
}

// CommandRequest is a sender's request. Zero values of ID, CreatedAt, TTL, AckTimeout and
// MaxDeliveries are filled in.
type CommandRequest struct {
	ID         string
	VM         string
	Type       string
	Params     Params
	CreatedAt  int64 // Unix seconds
	TTL        time.Duration
	AckTimeout time.Duration
	// MaxDeliveries is how many deliveries the command may have.
	MaxDeliveries int
}

// Accept turns a request into a pending command, or returns a *FieldError that names the
// field as in the schema.
func (r CommandRequest) Accept(d CommandDefaults, now time.Time) (Command, error) {
	if err := r.check(); err != nil {
		return Command{}, err
	}
	c := Command{
		ID: CommandID(r.ID), VM: VMID(r.VM), Type: r.Type, Params: r.Params,
		CreatedAt: time.Unix(r.CreatedAt, 0).UTC(), AcceptedAt: now, State: Pending,
		AckTimeout: cmp.Or(r.AckTimeout, d.AckTimeout), MaxDeliveries: cmp.Or(r.MaxDeliveries, d.MaxDeliveries),
	}
	if r.ID == "" {
		c.ID = NewCommandID()
	}
	if r.CreatedAt == 0 {
		c.CreatedAt = now.Truncate(time.Second)
	}
	c.ExpiresAt = now.Add(cmp.Or(r.TTL, d.TTL))
	c.DueAt = c.ExpiresAt
	return c, nil
}

func (r CommandRequest) check() error {
	if err := CheckID("vm_id", r.VM); err != nil {
		return err
	}
	if err := CheckID("command.type", r.Type); err != nil {
		return err
	}
	if err := CheckOptionalID("command.id", r.ID); err != nil {
		return err
	}
	if r.CreatedAt < 0 || r.CreatedAt > maxUnixSeconds {
		return Invalid("command.created_at", "must be Unix seconds between 0 and the year 9999")
	}
	if err := CheckDuration("ttl", r.TTL, MaxTTL); err != nil {
		return err
	}
	if err := CheckDuration("ack_timeout", r.AckTimeout, MaxAckTimeout); err != nil {
		return err
	}
	if r.MaxDeliveries < 0 || r.MaxDeliveries > MaxDeliveriesLimit {
		return Invalid("max_deliveries", "must be between 1 and %d, or 0 for the default", MaxDeliveriesLimit)
	}
	if _, given := r.Params.Strings[RegistrationTokenParam]; given {
		return Invalid("command.string_params[registration_token]",
			"must not be given: the controller fills in a token when it delivers register_runner")
	}
	return r.Params.check()
}

// CheckDuration returns a *FieldError when d is negative or longer than limit.
func CheckDuration(field string, d, limit time.Duration) error {
	if d < 0 || d > limit {
		return Invalid(field, "must be between 0s and %.0fs", limit.Seconds())
	}
	return nil
}

func (p Params) check() error {
	if err := checkNames("command.string_params", p.Strings); err != nil {
		return err
	}
	if err := checkNames("command.int_params", p.Ints); err != nil {
		return err
	}
	if err := checkNames("command.bool_params", p.Bools); err != nil {
		return err
	}
	for _, v := range p.Strings {
		if !textFits(v) {
			return Invalid("command.string_params", "must have texts of at most %d bytes of UTF-8", MaxParamLength)
		}
	}
	if len(p.List) > MaxParams {
		return Invalid("command.string_array_params", "must have at most %d entries", MaxParams)
	}
	for _, v := range p.List {
		if !textFits(v) {
			return Invalid("command.string_array_params", "must have texts of at most %d bytes of UTF-8", MaxParamLength)
		}
	}
	return nil
}

func checkNames[V any](field string, params map[string]V) error {
	if len(params) > MaxParams {
		return Invalid(field, "must have at most %d entries", MaxParams)
	}
	for name := range params {
		if name == "" || len(name) > MaxIDLength || !utf8.ValidString(name) {
			return Invalid(field, "must have names of 1 to %d bytes of UTF-8", MaxIDLength)
		}
	}
	return nil
}

func textFits(s string) bool { return len(s) <= MaxParamLength && utf8.ValidString(s) }
