package memory

import (
	"context"
	"time"

	"github.com/mig-controller/mig-controller/internal/store"
)

// asideRow is a row that was set aside.
type asideRow struct {
	store.Aside
	row any
}

// SetAside moves the rows that check rejects.
func (db *DB) SetAside(ctx context.Context, at time.Time, places []store.Place, check store.Check) (moved []store.Aside, err error) {
	db.mu.Lock()
	defer db.mu.Unlock()
	if err := db.usable(ctx); err != nil {
		return nil, err
	}
	vms := make(map[int64]string, len(db.vms))
	for id, row := range db.vms {
		vms[row.Row] = id
	}
	commands := make(map[int64]string, len(db.commands))
	for id, row := range db.commands {
		commands[row.Seq] = id
	}
	for _, p := range places {
		a := store.Aside{Place: p, At: at}
		row, remove := db.at(&a, vms[p.Row], commands[p.Row])
		if row == nil {
			continue
		}
		if why := check.Fault(row); why != nil {
			a.Why, a.Number = why.Error(), int64(len(db.aside)+1)
			remove()
			db.aside = append(db.aside, asideRow{a, row})
			moved = append(moved, a)
		}
	}
	return moved, nil
}

// at returns a row as lists do and a function that removes it, and fills in a; nil if there
// is no such row. vm and command are the ids of the VM and the command with its number.
func (c *content) at(a *store.Aside, vm, command string) (row any, remove func()) {
	switch a.Class {
	case store.ClassVMs:
		if r, found := c.vms[vm]; found {
			a.ID, a.VM = vm, vm
			return own(r), func() { delete(c.vms, vm) }
		}
	case store.ClassCommands:
		if r, found := c.commands[command]; found {
			a.ID, a.VM = command, r.VM
			return own(r), func() {
				delete(c.commands, command)
				delete(c.queues[[2]string{r.VM, r.Queue}], r.Seq)
			}
		}
	case store.ClassTokens:
		if r, found := c.tokenAt(a.Row); found {
			a.ID = r.ID
			return own(r), func() { delete(c.tokens, r.ID) }
		}
	case store.ClassAudit:
		if r, found := c.audit[a.Row]; found {
			a.VM = r.VM
			return own(r), func() { delete(c.audit, a.Row) }
		}
	case store.ClassEvents:
		if r, found := c.events[a.Row]; found {
			a.VM = r.VM
			return own(r), func() { delete(c.events, a.Row) }
		}
	case store.ClassHeartbeats:
		if r, found := c.heartbeats[a.Row]; found {
			return own(r), func() { delete(c.heartbeats, a.Row) }
		}
	case store.ClassChanges:
		if r, found := c.changes[a.Row]; found {
			a.VM = r.VM
			return own(c.documented(r)), func() {
				c.changes[a.Row] = store.ChangeRow{Seq: r.Seq, At: r.At}
				c.damagedChange = max(c.damagedChange, a.Row)
			}
		}
	}
	return nil, nil
}

// documented returns a change with the document of its event.
func (c *content) documented(row store.ChangeRow) store.ChangeRow {
	if row.EventSeq != 0 {
		row.Doc = c.events[row.EventSeq].Doc
	}
	return row
}

// asideOf returns the latest number of a row with this id that was set aside; zero for
// none.
func (c *content) asideOf(class store.Class, id string) (n int64) {
	for _, a := range c.aside {
		if a.Class == class && a.ID == id {
			n = a.Number
		}
	}
	return n
}

// asides returns those of the keys whose row was set aside and not replaced.
func (c *content) asides(k store.Keys) (all store.Asides) {
	for _, id := range k.VMs {
		if _, found := c.vms[id]; !found {
			all.VMs = noted(all.VMs, id, c.asideOf(store.ClassVMs, id))
		}
	}
	for _, id := range k.Commands {
		if _, found := c.commands[id]; !found {
			all.Commands = noted(all.Commands, id, c.asideOf(store.ClassCommands, id))
		}
	}
	return all
}

func noted(numbers map[string]int64, id string, n int64) map[string]int64 {
	if n == 0 {
		return numbers
	}
	if numbers == nil {
		numbers = map[string]int64{}
	}
	numbers[id] = n
	return numbers
}
