package control_test

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/internal/audit"
	"github.com/mig-controller/mig-controller/internal/auth"
	"github.com/mig-controller/mig-controller/internal/fleet"
	"github.com/mig-controller/mig-controller/internal/store"
)

func admin(ctx context.Context, scope auth.Scope) context.Context {
	return auth.With(ctx, auth.Principal{Name: "ann", Method: auth.ByToken, Role: auth.Admin, Scope: scope})
}

// A principal sees the audit events of VMs that are in its pools at the moment, and one that
// is not limited sees all. Pages are only valid for who got them.
func TestAuditEventsAreScoped(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := newControl(t, w)
	for i, pool := range []string{"a", "b", ""} {
		w.heartbeat(fleet.Heartbeat{Origin: fleet.Origin{VM: fleet.VMID(fmt.Sprintf("vm-%d", i)), Pool: pool, ReceivedAt: start}, Status: "idle"})
	}
	for i := range 9 {
		vm := fmt.Sprintf("vm-%d", i%5) // some were never seen
		require.NoError(t, w.RecordAudit(t.Context(), audit.Event{At: start.Add(time.Duration(i) * time.Second), VM: vm, Detail: strconv.Itoa(i), Count: 1}))
	}
	require.NoError(t, w.RecordAudit(t.Context(), audit.Event{At: start, Detail: "9", Outcome: "unauthenticated", Count: 7}))
	pages := func(ctx context.Context) (all []string) {
		for token := ""; ; {
			page, next, err := c.AuditEvents(ctx, store.AuditQuery{}, 1, token)
			require.NoError(t, err)
			for _, e := range page {
				all = append(all, e.Detail)
			}
			if token = next; token == "" {
				return all
			}
		}
	}
	require.Equal(t, strings.Split("9876543210", ""), pages(admin(t.Context(), auth.AllPools())))
	require.Equal(t, []string{"6", "5", "1", "0"}, pages(admin(t.Context(), auth.OnlyPools("a", "b"))))
	require.Equal(t, []string{"6", "1"}, pages(admin(t.Context(), auth.OnlyPools("b"))))
	require.Empty(t, pages(admin(t.Context(), auth.OnlyPools(""))))
	require.Empty(t, pages(admin(t.Context(), auth.Scope{})), "without pools nothing is seen")
	require.Empty(t, pages(t.Context()), "nobody sees nothing")

	_, token, err := c.AuditEvents(admin(t.Context(), auth.AllPools()), store.AuditQuery{}, 1, "")
	require.NoError(t, err)
	_, _, err = c.AuditEvents(admin(t.Context(), auth.OnlyPools("a")), store.AuditQuery{}, 1, token)
	requireField(t, err, "page_token")
	_, _, err = c.AuditEvents(admin(t.Context(), auth.AllPools()), store.AuditQuery{Outcome: "ok"}, 1, token)
	requireField(t, err, "page_token")
}

// Filters are checked, and reach the store.
func TestAuditFilters(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := newControl(t, w)
	ctx := admin(t.Context(), auth.AllPools())
	for field, q := range map[string]store.AuditQuery{
		"principal": {Principal: "a\x00b"}, "action": {Action: "SendCommand"}, "vm_id": {VM: "a b"}, "command_id": {Command: "/"},
		"outcome": {Outcome: "OK"}, "until": {Since: start, Until: start},
	} {
		_, _, err := c.AuditEvents(ctx, q, 0, "")
		requireField(t, err, field)
	}
	_, _, err := c.AuditEvents(ctx, store.AuditQuery{Principal: strings.Repeat("x", 1025)}, 0, "")
	requireField(t, err, "principal")
	_, _, err = c.AuditEvents(ctx, store.AuditQuery{}, 1001, "")
	requireField(t, err, "page_size")

	one := audit.Event{At: start, By: auth.Principal{Name: "repo:o/r:ref:refs/heads/main"}, Action: "AdminService/CancelCommand", VM: "vm-1", Command: "c1", Outcome: "not_found", Count: 1}
	other := audit.Event{At: start.Add(time.Hour), By: auth.Principal{Name: "b"}, Action: "A/B", VM: "vm-2", Command: "c2", Outcome: "ok", Count: 1}
	require.NoError(t, w.RecordAudit(ctx, one, other))
	for _, q := range []store.AuditQuery{
		{Principal: one.By.Name}, {Action: one.Action}, {VM: one.VM}, {Command: one.Command}, {Outcome: one.Outcome}, {Until: other.At},
	} {
		page, _, err := c.AuditEvents(ctx, q, 0, "")
		require.NoError(t, err)
		require.Len(t, page, 1, "%+v", q)
		require.Equal(t, one.Action, page[0].Action)
	}
}

// A command's record names who has sent and who has cancelled it, if they had to say who they
// are.
func TestCommandsNameTheirPrincipals(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := newControl(t, w)
	ann := admin(t.Context(), auth.AllPools())
	bob := auth.With(t.Context(), auth.Principal{Name: "bob", Method: auth.ByOIDC, Role: auth.Operator, Scope: auth.AllPools()})
	_, err := c.Send(ann, drain("c1"), 0)
	require.NoError(t, err)
	again, err := c.Send(bob, drain("c1"), 0)
	require.NoError(t, err)
	require.Equal(t, "ann", again.RequestedBy, "the first has sent it")
	cancelled, err := c.Cancel(bob, "c1")
	require.NoError(t, err)
	require.Equal(t, "bob", cancelled.CancelledBy)
	read, err := c.Command(ann, "c1")
	require.NoError(t, err)
	require.Equal(t, []string{"ann", "bob"}, []string{read.RequestedBy, read.CancelledBy})

	sent, err := c.Send(auth.With(t.Context(), auth.Anyone()), drain("c2"), 0)
	require.NoError(t, err)
	require.Empty(t, sent.RequestedBy)
}
