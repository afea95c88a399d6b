package control

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/mig-controller/mig-controller/internal/fleet"
	"github.com/mig-controller/mig-controller/internal/store"
)

// The size of a page, in entries.
const (
	DefaultPageSize = 100
	MaxPageSize     = 1000
)

// Commands lists commands, latest accepted first: a page of at most size, which may be
// shorter if entries are large, and the token for the next one, empty on the last. The
// bounds of store.Queries keep a page below 4 MiB, the default message limit of gRPC
// clients. A size of zero means DefaultPageSize; the token of the first page is empty. A
// limited caller gets the commands of the VMs that are in its pools when the page is read.
// Errors: a *fleet.FieldError, fleet.ErrUnavailable.
func (c *Control) Commands(
	ctx context.Context, q store.CommandQuery, size int, token string,
) ([]fleet.Command, string, error) {
	if err := checkCommandQuery(q); err != nil {
		return nil, "", err
	}
	size, err := pageSize(size)
	if err != nil {
		return nil, "", err
	}
	r := reachOf(ctx)
	scope := r.seal(c.engine.ID(), "commands", q.VM, q.Type, stateSet(q.States))
	if q.Before, err = seqPlace(scope, token); err != nil {
		return nil, "", err
	}
	var ok bool
	if q.Pools, ok = r.pools(); !ok {
		return nil, "", nil
	}
	page, more, err := c.engine.Commands(ctx, q, size)
	if err != nil {
		return nil, "", fmt.Errorf("list commands: %w", err)
	}
	page = c.explain(ctx, page)
	if !more {
		return page, "", nil
	}
	return page, sealSeq(scope, page[len(page)-1].Seq), nil
}

// VMs lists VMs in order of their ids, in pages as Commands does. Errors: a
// *fleet.FieldError, fleet.ErrUnavailable.
func (c *Control) VMs(ctx context.Context, q store.VMQuery, size int, token string) ([]fleet.VM, string, error) {
	if err := checkVMQuery(q); err != nil {
		return nil, "", err
	}
	size, err := pageSize(size)
	if err != nil {
		return nil, "", err
	}
	connected := ""
	if q.Connected != nil {
		connected = strconv.FormatBool(*q.Connected)
	}
	r := reachOf(ctx)
	scope := r.seal(c.engine.ID(), "vms", q.Pool, q.Org, q.Status, connected)
	if q.After, err = vmPlace(scope, token); err != nil {
		return nil, "", err
	}
	var ok bool
	if q.Pools, ok = r.pools(); !ok {
		return nil, "", nil
	}
	page, more, err := c.engine.VMs(ctx, q, size)
	if err != nil {
		return nil, "", fmt.Errorf("list VMs: %w", err)
	}
	if !more {
		return page, "", nil
	}
	return page, seal(scope, string(page[len(page)-1].ID)), nil
}

// Events lists events, latest received first, in pages as Commands does. Errors: a
// *fleet.FieldError, fleet.ErrUnavailable.
func (c *Control) Events(
	ctx context.Context, q store.EventQuery, size int, token string,
) ([]fleet.Event, string, error) {
	if err := checkEventQuery(q); err != nil {
		return nil, "", err
	}
	size, err := pageSize(size)
	if err != nil {
		return nil, "", err
	}
	r := reachOf(ctx)
	scope := r.seal(c.engine.ID(), "events", q.VM, q.Type, instant(q.Since), instant(q.Until))
	if q.Before, err = seqPlace(scope, token); err != nil {
		return nil, "", err
	}
	var ok bool
	if q.Pools, ok = r.pools(); !ok {
		return nil, "", nil
	}
	page, more, err := c.engine.Events(ctx, q, size)
	if err != nil {
		return nil, "", fmt.Errorf("list events: %w", err)
	}
	if !more {
		return page, "", nil
	}
	return page, sealSeq(scope, page[len(page)-1].Seq), nil
}

// Heartbeats lists the stored heartbeats of a VM, latest received first, in pages as
// Commands does. Errors: a *fleet.FieldError, fleet.ErrNotFound, fleet.ErrUnavailable.
func (c *Control) Heartbeats(ctx context.Context, id string, size int, token string) ([]fleet.Heartbeat, string, error) {
	vm, err := fleet.ParseVMID(id)
	if err != nil {
		return nil, "", err
	}
	if size, err = pageSize(size); err != nil {
		return nil, "", err
	}
	r := reachOf(ctx)
	scope := r.seal(c.engine.ID(), "heartbeats", id)
	nanos, err := seqPlace(scope, token)
	if err != nil {
		return nil, "", err
	}
	var before time.Time
	if nanos > 0 {
		before = time.Unix(0, nanos).UTC()
	}
	if _, err := c.engine.VM(ctx, vm); err != nil && (r.limited() || !errors.Is(err, fleet.ErrDamaged)) {
		return nil, "", named(r.hide(err), "VM", id)
	}
	if err := c.requireSeen(ctx, r, vm); err != nil {
		return nil, "", named(err, "VM", id)
	}
	page, more, err := c.engine.Heartbeats(ctx, vm, before, size)
	if err != nil {
		return nil, "", fmt.Errorf("list heartbeats: %w", err)
	}
	if err := c.requireSeen(ctx, r, vm); err != nil { // it has left meanwhile
		return nil, "", named(err, "VM", id)
	}
	if !more {
		return page, "", nil
	}
	return page, sealSeq(scope, page[len(page)-1].ReceivedAt.UnixNano()), nil
}

func checkCommandQuery(q store.CommandQuery) error {
	if err := fleet.CheckOptionalID("vm_id", q.VM); err != nil {
		return err
	}
	for _, s := range q.States {
		if !slices.Contains(fleet.CommandStates, fleet.CommandState(s)) {
			return fleet.Invalid("states", "must be states of a command")
		}
	}
	return fleet.CheckOptionalID("type", q.Type)
}

func checkVMQuery(q store.VMQuery) error {
	if err := fleet.CheckOptionalID("pool_id", q.Pool); err != nil {
		return err
	}
	if err := fleet.CheckOptionalID("org_id", q.Org); err != nil {
		return err
	}
	return fleet.CheckOptionalID("status", q.Status)
}

func checkEventQuery(q store.EventQuery) error {
	if err := fleet.CheckOptionalID("vm_id", q.VM); err != nil {
		return err
	}
	if !q.Since.IsZero() && !q.Until.IsZero() && !q.Until.After(q.Since) {
		return fleet.Invalid("until", "must be after since")
	}
	return fleet.CheckOptionalID("type", q.Type)
}

func pageSize(size int) (int, error) {
	if size < 0 || size > MaxPageSize {
		return 0, fleet.Invalid("page_size", "must be between 0 and %d", MaxPageSize)
	}
	if size == 0 {
		return DefaultPageSize, nil
	}
	return size, nil
}

func seqPlace(scope, token string) (int64, error) {
	if token == "" {
		return 0, nil
	}
	seq, ok := unsealSeq(scope, token)
	if !ok || seq == 0 {
		return 0, badToken()
	}
	return seq, nil
}

func vmPlace(scope, token string) (string, error) {
	if token == "" {
		return "", nil
	}
	place, ok := unseal(scope, token)
	if !ok || fleet.CheckID("page_token", place) != nil {
		return "", badToken()
	}
	return place, nil
}

func badToken() error {
	return fleet.Invalid("page_token",
		"must be the next_page_token of the previous page, with the same filters")
}

// stateSet writes states in a canonical order.
func stateSet(states []string) string {
	states = slices.Clone(states)
	slices.Sort(states)
	return strings.Join(slices.Compact(states), ",")
}

func instant(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339Nano)
}
