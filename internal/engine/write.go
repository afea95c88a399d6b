package engine

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/mig-controller/mig-controller/internal/fleet"
	"github.com/mig-controller/mig-controller/internal/store"
)

// The kinds of changes.
const (
	kindVM      = "vm"
	kindCommand = "command"
	kindEvent   = "event"
)

// write commits the changes of the group, and fills in the numbers that the driver
// assigned.
func (g *group) write() error {
	w, written, err := g.writes()
	if err != nil {
		return err
	}
	var done store.Committed
	if rowsOf(w) > 0 {
		g.e.feed.beginCommit()
		if done, err = g.e.commit(w); err != nil {
			g.e.feed.abortCommit()
			return err
		}
		defer func() { g.e.feed.endCommit(g.changes) }() // after updateCache
	}
	for i := range g.commands {
		g.commands[i].Version++
		g.commands[i].Seq = done.Commands[i]
	}
	events := 0
	for i := range g.changes {
		c := &g.changes[i]
		c.Seq = done.FirstChange + int64(i)
		if c.Event != nil {
			c.Event.Seq = done.Events[events]
			events++
		}
	}
	for _, en := range written {
		en.cached.version++
	}
	g.updateCache()
	return nil
}

// commit commits writes, and measures that.
func (e *Engine) commit(w store.Writes) (store.Committed, error) {
	began := time.Now()
	done, err := e.Driver.Commit(unstoppable, w)
	if err == nil {
		e.metrics.commitTime.Observe(time.Since(began).Seconds())
		e.metrics.commitRows.Observe(float64(rowsOf(w)))
	} else if _, conflict := errors.AsType[*store.ConflictError](err); !conflict {
		e.metrics.commitsFailed.Inc()
	}
	return done, err
}

// rowsOf returns how many rows are written.
func rowsOf(w store.Writes) int {
	return len(w.VMs) + len(w.Commands) + len(w.Events) + len(w.Heartbeats) + len(w.Changes) + len(w.Marks) +
		len(w.Tokens) + len(w.RemovedTokens) + len(w.Audit)
}

// updateCache caches the VMs in their new state.
func (g *group) updateCache() {
	for _, en := range g.entries {
		for i, c := range en.commands {
			if j, ok := g.commandIndex[c.ID]; ok {
				en.commands[i] = g.commands[j] // with its numbers; the entry owns the slice, since c has changed
			}
		}
	}
	g.e.cache.put(g.entries)
}

// writes returns the rows of what was changed, and the VMs among them. Rows of VMs that can
// be written later are skipped.
func (g *group) writes() (w store.Writes, written []*entry, err error) {
	var docs [][]byte // of the changes of VMs
	w.Marks, w.Tokens, w.RemovedTokens, w.Audit = g.marks, g.tokenRows(), g.removedTokens, g.auditRows()
	for _, en := range g.order {
		if en.cached.dirty = en.canWriteLater(); en.cached.dirty {
			continue
		}
		row, err := encodeVM(en.vm, en.cached.version)
		if err != nil {
			return w, nil, err
		}
		w.VMs = append(w.VMs, row)
		written = append(written, en)
		en.cached.writtenAt = en.at
		if en.differs() {
			v := en.vm
			c := fleet.Change{At: en.at, Subject: en.id, VM: &v}
			if was := en.cached.vm.Pool; was != v.Pool {
				c.Left = was
			}
			g.changes = append(g.changes, c)
			docs = append(docs, row.Doc)
		}
	}
	for _, c := range g.commands {
		row, err := encodeCommand(c)
		if err != nil {
			return w, nil, err
		}
		w.Commands = append(w.Commands, row)
		w.Erase = w.Erase || c.SecretSum != ""
	}
	if g.heartbeats != nil && len(g.heartbeats.vms) > 0 {
		w.Heartbeats = []store.HeartbeatRow{g.heartbeats.row(g.e.packer)}
	}
	err = g.writeChanges(&w, docs)
	return w, written, err
}

// writeChanges adds the rows of the changes; ofVMs are the documents of the VMs' changes,
// in order.
func (g *group) writeChanges(w *store.Writes, ofVMs [][]byte) error {
	w.Events = g.events
	w.Changes = make([]store.ChangeRow, 0, len(g.changes))
	events := 0
	for i := range g.changes {
		c := &g.changes[i]
		if en := g.entries[c.Subject]; en != nil {
			c.Pool = en.vm.Pool
		}
		row := store.ChangeRow{At: c.At, VM: string(c.Subject), Pool: c.Pool, Left: c.Left}
		var err error
		switch {
		case c.VM != nil:
			row.Kind, row.Doc, ofVMs = kindVM, ofVMs[0], ofVMs[1:]
		case c.Command != nil:
			row.Kind = kindCommand
			row.Doc, err = g.changeOf(c, w)
		default:
			events++
			row.Kind, row.Event = kindEvent, events
		}
		if err != nil {
			return fmt.Errorf("write change: %w", err)
		}
		w.Changes = append(w.Changes, row)
	}
	return nil
}

// changeOf reduces a change to the command's outline and returns its document, which is
// that of the command's row if both are the same.
func (g *group) changeOf(change *fleet.Change, w *store.Writes) ([]byte, error) {
	whole := *change.Command
	outline := whole.Outline()
	outline.Seq, outline.Version = 0, 0 // documents do not contain them
	change.Command = &outline
	i := g.commandIndex[whole.ID]
	if last := g.commands[i]; last.State == whole.State && last.Attempts == whole.Attempts &&
		last.Last == whole.Last && last.DueAt.Equal(whole.DueAt) && last.Ack == whole.Ack && whole.Params.Equal(outline.Params) {
		return w.Commands[i].Doc, nil
	}
	return json.Marshal(outline)
}
