package control

import (
	"context"
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

// maxPageBytes ends a page early, so that a page of large entries still fits
// the 4 MiB that gRPC clients take unless told otherwise.
const maxPageBytes = 2 << 20

// Commands lists commands, the latest accepted first: a page of at most size,
// which may be shorter before the last when entries are large, and the token for
// the next, empty on the last. A size of zero is DefaultPageSize; the token of
// the first page is empty. Errors: a *fleet.FieldError, fleet.ErrUnavailable.
func (c *Control) Commands(
	ctx context.Context, f store.CommandFilter, size int, token string,
) ([]fleet.Command, string, error) {
	if err := checkCommandFilter(f); err != nil {
		return nil, "", err
	}
	size, err := pageSize(size)
	if err != nil {
		return nil, "", err
	}
	scope := scopeOf(c.store.ID(), "commands", string(f.VM), f.Type, stateSet(f.States))
	before, err := seqPlace(scope, token)
	if err != nil {
		return nil, "", err
	}
	rows, err := c.store.Commands(ctx, f, store.Page{Size: size + 1, Before: before})
	if err != nil {
		return nil, "", fmt.Errorf("list commands: %w", err)
	}
	page, more := cut(rows, size, commandBytes)
	page = c.explain(ctx, page)
	if !more {
		return page, "", nil
	}
	return page, sealSeq(scope, page[len(page)-1].Seq), nil
}

// VMs lists VMs in the order of their ids, in pages as Commands does. Errors: a
// *fleet.FieldError, fleet.ErrUnavailable.
func (c *Control) VMs(ctx context.Context, f store.VMFilter, size int, token string) ([]fleet.VM, string, error) {
	if err := checkVMFilter(f); err != nil {
		return nil, "", err
	}
	size, err := pageSize(size)
	if err != nil {
		return nil, "", err
	}
	connected := ""
	if f.Connected != nil {
		connected = strconv.FormatBool(*f.Connected)
	}
	scope := scopeOf(c.store.ID(), "vms", f.Pool, f.Org, f.Status, connected)
	after, err := vmPlace(scope, token)
	if err != nil {
		return nil, "", err
	}
	rows, err := c.store.VMs(ctx, f, store.Page{Size: size + 1, After: after})
	if err != nil {
		return nil, "", fmt.Errorf("list VMs: %w", err)
	}
	page, more := cut(rows, size, vmBytes)
	if !more {
		return page, "", nil
	}
	return page, seal(scope, string(page[len(page)-1].ID)), nil
}

// Events lists events, the latest received first, in pages as Commands does.
// Errors: a *fleet.FieldError, fleet.ErrUnavailable.
func (c *Control) Events(
	ctx context.Context, f store.EventFilter, size int, token string,
) ([]fleet.Event, string, error) {
	if err := checkEventFilter(f); err != nil {
		return nil, "", err
	}
	size, err := pageSize(size)
	if err != nil {
		return nil, "", err
	}
	scope := scopeOf(c.store.ID(), "events", string(f.VM), f.Type, instant(f.Since), instant(f.Until))
	before, err := seqPlace(scope, token)
	if err != nil {
		return nil, "", err
	}
	rows, err := c.store.Events(ctx, f, store.Page{Size: size + 1, Before: before})
	if err != nil {
		return nil, "", fmt.Errorf("list events: %w", err)
	}
	page, more := cut(rows, size, eventBytes)
	if !more {
		return page, "", nil
	}
	return page, sealSeq(scope, page[len(page)-1].Seq), nil
}

// Heartbeats lists the heartbeats of a VM that are still kept, the latest received
// first, in pages as Commands does. Errors: a *fleet.FieldError, fleet.ErrNotFound,
// fleet.ErrUnavailable.
func (c *Control) Heartbeats(ctx context.Context, id string, size int, token string) ([]fleet.Heartbeat, string, error) {
	vm, err := fleet.ParseVMID(id)
	if err != nil {
		return nil, "", err
	}
	if size, err = pageSize(size); err != nil {
		return nil, "", err
	}
	scope := scopeOf(c.store.ID(), "heartbeats", id)
	before, err := seqPlace(scope, token)
	if err != nil {
		return nil, "", err
	}
	if _, err := c.store.VM(ctx, vm); err != nil {
		return nil, "", named(err, "VM", id)
	}
	rows, err := c.store.Heartbeats(ctx, vm, store.Page{Size: size + 1, Before: before})
	if err != nil {
		return nil, "", fmt.Errorf("list heartbeats: %w", err)
	}
	page, more := cut(rows, size, heartbeatBytes)
	if !more {
		return page, "", nil
	}
	return page, sealSeq(scope, page[len(page)-1].ReceivedAt.UnixNano()), nil
}

func checkCommandFilter(f store.CommandFilter) error {
	if err := fleet.CheckOptionalID("vm_id", string(f.VM)); err != nil {
		return err
	}
	for _, s := range f.States {
		if !slices.Contains(fleet.CommandStates, s) {
			return fleet.Invalid("states", "must be states of a command")
		}
	}
	return fleet.CheckOptionalID("type", f.Type)
}

func checkVMFilter(f store.VMFilter) error {
	if err := fleet.CheckOptionalID("pool_id", f.Pool); err != nil {
		return err
	}
	if err := fleet.CheckOptionalID("org_id", f.Org); err != nil {
		return err
	}
	return fleet.CheckOptionalID("status", f.Status)
}

func checkEventFilter(f store.EventFilter) error {
	if err := fleet.CheckOptionalID("vm_id", string(f.VM)); err != nil {
		return err
	}
	if !f.Since.IsZero() && !f.Until.IsZero() && !f.Until.After(f.Since) {
		return fleet.Invalid("until", "must be after since")
	}
	return fleet.CheckOptionalID("type", f.Type)
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

func vmPlace(scope, token string) (fleet.VMID, error) {
	if token == "" {
		return "", nil
	}
	place, ok := unseal(scope, token)
	if !ok || fleet.CheckID("page_token", place) != nil {
		return "", badToken()
	}
	return fleet.VMID(place), nil
}

func badToken() error {
	return fleet.Invalid("page_token",
		"must be the next_page_token of the page before, asked for with the same filters")
}

// stateSet writes states so that the same ones in another order are the same.
func stateSet(states []fleet.CommandState) string {
	names := make([]string, 0, len(states))
	for _, s := range states {
		names = append(names, string(s))
	}
	slices.Sort(names)
	return strings.Join(slices.Compact(names), ",")
}

func instant(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339Nano)
}

// cut makes a page of rows, which are one more than size if there are that many,
// and reports whether any rows are left over. A page has at least one row.
func cut[T any](rows []T, size int, bytes func(T) int) (page []T, more bool) {
	total := 0
	for i, row := range rows {
		total += bytes(row)
		if i == size || (i > 0 && total > maxPageBytes) {
			return rows[:i], true
		}
	}
	return rows, false
}

// entryBytes is what an entry takes beyond what is counted.
const entryBytes = 512

func commandBytes(c fleet.Command) int {
	n := entryBytes + c.Params.Size()
	if c.Ack != nil {
		n += len(c.Ack.Message)
		for name, value := range c.Ack.Result {
			n += len(name) + len(value)
		}
	}
	return n
}

func vmBytes(fleet.VM) int { return entryBytes }

func eventBytes(e fleet.Event) int { return entryBytes + len(e.Body) }

func heartbeatBytes(h fleet.Heartbeat) int { return entryBytes + len(h.Body) }
