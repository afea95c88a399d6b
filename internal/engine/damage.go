package engine

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/mig-controller/mig-controller/internal/fleet"
	"github.com/mig-controller/mig-controller/internal/logkey"
	"github.com/mig-controller/mig-controller/internal/store"
)

// The log attributes of damaged rows.
const (
	keyTable  = "table"
	keyRow    = "row"
	keyID     = "id"
	keyNumber = "number"
)

// damageChecks returns functions that return why a row is damaged: the engine cannot have
// written it.
func (e *Engine) damageChecks() store.Check {
	return store.Check{
		VM:      func(row store.VMRow) error { _, err := decodeVM(row); return err },
		Command: func(row store.CommandRow) error { _, err := decodeCommand(row); return err },
		Event:   func(row store.EventRow) error { _, err := decodeEvent(row); return err },
		Change:  func(row store.ChangeRow) error { _, err := decodeChange(row); return err },
		Token:   func(row store.TokenRow) error { _, err := decodeToken(row); return err },
		Audit:   func(row store.AuditRow) error { _, err := decodeAudit(row); return err },
		Heartbeats: func(row store.HeartbeatRow) error {
			_, err := e.unpack(row.Doc)
			return err
		},
	}
}

// placesOfVM returns where a row is, and the next functions do so for other rows.
func placesOfVM(row store.VMRow) []store.Place {
	return []store.Place{{Class: store.ClassVMs, Row: row.Row}}
}

func placesOfCommand(row store.CommandRow) []store.Place {
	return []store.Place{{Class: store.ClassCommands, Row: row.Seq}}
}

func placesOfEvent(row store.EventRow) []store.Place {
	return []store.Place{{Class: store.ClassEvents, Row: row.Seq}}
}

// placesOfChange begins with the event whose document the change contains: without that
// event, the change is usually readable.
func placesOfChange(row store.ChangeRow) (places []store.Place) {
	if row.EventSeq != 0 {
		places = append(places, store.Place{Class: store.ClassEvents, Row: row.EventSeq})
	}
	return append(places, store.Place{Class: store.ClassChanges, Row: row.Seq})
}

// decoded decodes rows. It returns a *store.DamagedError for rows that cannot be decoded.
func decoded[R, T any](rows []R, places func(R) []store.Place, decode func(R) (T, error)) ([]T, error) {
	all := make([]T, 0, len(rows))
	var damage []store.Place
	for _, row := range rows {
		t, err := decode(row)
		if err != nil {
			damage = append(damage, places(row)...)
			continue
		}
		all = append(all, t)
	}
	return all, damageAt(damage)
}

// damageAt returns a *store.DamagedError, or nil if there are no places.
func damageAt(places []store.Place) error {
	if len(places) == 0 {
		return nil
	}
	return &store.DamagedError{Places: places}
}

// bothDamaged combines the damage of two lists into one error.
func bothDamaged(a, b error) error {
	var places []store.Place
	for _, err := range []error{a, b} {
		if damage, ok := errors.AsType[*store.DamagedError](err); ok {
			places = append(places, damage.Places...)
		}
	}
	return damageAt(places)
}

// errNotAside occurs when rows are damaged each time they are read, but not when SetAside
// checks them.
var errNotAside = errors.New("damaged rows were not set aside")

// undamaged calls read until it finds no damaged row, and sets aside those that it finds.
// It returns any other error of read, and those of the driver, unchanged.
func (e *Engine) undamaged(ctx context.Context, read func() error) error {
	for futile := 0; futile < maxTries; {
		err := read()
		damage, ok := errors.AsType[*store.DamagedError](err)
		if !ok {
			return err
		}
		n, err := e.setAside(ctx, damage.Places)
		if err != nil {
			return fmt.Errorf("set damaged rows aside: %w", err)
		}
		if n == 0 { // another reader has set them aside
			futile++
		}
	}
	return errNotAside
}

// setAside sets damaged rows aside and returns how many it has moved. Their VMs are loaded
// again. A VM whose own row was damaged has no session any more: it starts over with the
// next one.
func (e *Engine) setAside(ctx context.Context, places []store.Place) (int, error) {
	moved, err := e.Driver.SetAside(ctx, e.Clock(), places, e.damageChecks())
	if err != nil {
		return 0, err
	}
	for _, a := range moved {
		e.metrics.countDamaged(a.Class)
		e.Log.Error("damaged row set aside", keyTable, a.Class, keyRow, a.Row, keyID, a.ID, logkey.VM, a.VM,
			keyNumber, a.Number, logkey.Error, a.Why)
		switch a.Class {
		case store.ClassVMs:
			e.cache.drop(fleet.VMID(a.VM))
			e.ready.each(func(fn func(fleet.VMID, fleet.Ready)) { fn(fleet.VMID(a.VM), fleet.Ready{}) })
		case store.ClassCommands:
			e.cache.invalidate(fleet.VMID(a.VM))
		default:
		}
	}
	return len(moved), nil
}

// epochGap is the distance between the epochs of a VM before and after its row was set
// aside. No VM has that many sessions.
const epochGap = 1_000_000_000

// lostEpoch returns where the epochs of a VM continue after its row was set aside under this
// number: above all that it had before, and below those after the next time.
func lostEpoch(number int64) fleet.Epoch { return fleet.Epoch(number) * epochGap }

// damagedRows contains the rows in which a damaged heartbeat was found.
type damagedRows struct {
	mu   sync.Mutex
	rows map[int64]bool
}

// maxDamagedRows bounds damagedRows. When the limit is reached it starts over, and rows may
// be reported again.
const maxDamagedRows = 1000

// first reports whether a row is recorded for the first time.
func (n *damagedRows) first(row int64) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.rows[row] {
		return false
	}
	if n.rows == nil || len(n.rows) >= maxDamagedRows {
		n.rows = map[int64]bool{}
	}
	n.rows[row] = true
	return true
}

// logDamaged logs, once per row, that a heartbeat in it is damaged. The other heartbeats of
// the row are readable, so it is not set aside.
func (e *Engine) logDamaged(row store.HeartbeatRow, vm fleet.VMID, why error) {
	if e.damageLogged.first(row.Seq) {
		e.metrics.countDamaged(store.ClassHeartbeats)
		e.Log.Error("damaged heartbeat left out", keyTable, store.ClassHeartbeats, keyRow, row.Seq, logkey.VM, vm, logkey.Error, why)
	}
}
