package control

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/mig-controller/mig-controller/internal/audit"
	"github.com/mig-controller/mig-controller/internal/auth"
	"github.com/mig-controller/mig-controller/internal/fleet"
	"github.com/mig-controller/mig-controller/internal/store"
)

// AuditEvents lists audit events, latest first, in pages as Commands does. A principal that is
// limited to some pools gets those whose VM is in one of them. Errors: a *fleet.FieldError,
// fleet.ErrUnavailable.
func (c *Control) AuditEvents(ctx context.Context, q store.AuditQuery, size int, token string) ([]audit.Event, string, error) {
	if err := checkAuditQuery(q); err != nil {
		return nil, "", err
	}
	size, err := pageSize(size)
	if err != nil {
		return nil, "", err
	}
	sees := auth.From(ctx).Scope
	q.Pools = slices.DeleteFunc(sees.Pools(), func(pool string) bool { return pool == "" }) // VMs without a pool are in no scope
	scope := scopeOf(c.engine.ID(), "audit", q.Principal, q.Action, q.VM, q.Command, q.Outcome,
		instant(q.Since), instant(q.Until), sees.String())
	if q.Before, err = seqPlace(scope, token); err != nil {
		return nil, "", err
	}
	if !sees.All() && len(q.Pools) == 0 {
		return nil, "", nil // without pools, the query would select all
	}
	page, more, err := c.engine.Audit(ctx, q, size)
	if err != nil {
		return nil, "", fmt.Errorf("list audit events: %w", err)
	}
	if !more {
		return page, "", nil
	}
	return page, sealSeq(scope, page[len(page)-1].Seq), nil
}

// maxPrincipal is the maximum length of the name of a principal in a filter, in bytes.
const maxPrincipal = 1024

var actionForm = regexp.MustCompile(`^[A-Za-z]{1,64}/[A-Za-z]{1,64}$`)

func checkAuditQuery(q store.AuditQuery) error {
	if len(q.Principal) > maxPrincipal || !utf8.ValidString(q.Principal) || strings.ContainsFunc(q.Principal, unicode.IsControl) {
		return fleet.Invalid("principal", "must have at most %d bytes and no control characters", maxPrincipal)
	}
	if q.Action != "" && !actionForm.MatchString(q.Action) {
		return fleet.Invalid("action", "must be a service and a method, such as AdminService/SendCommand")
	}
	if err := fleet.CheckOptionalID("vm_id", q.VM); err != nil {
		return err
	}
	if err := fleet.CheckOptionalID("command_id", q.Command); err != nil {
		return err
	}
	if q.Outcome != "" && !slices.Contains(audit.Outcomes, q.Outcome) {
		return fleet.Invalid("outcome", "must be ok or the code of an error, such as permission_denied")
	}
	if !q.Since.IsZero() && !q.Until.IsZero() && !q.Until.After(q.Since) {
		return fleet.Invalid("until", "must be after since")
	}
	return nil
}
