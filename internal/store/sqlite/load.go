package sqlite

import (
	"cmp"
	"context"
	"errors"
	"strings"
	"time"

	"github.com/mig-controller/mig-controller/internal/store"
)

// Load returns the existing rows that k names, as of one moment.
func (db *DB) Load(ctx context.Context, k store.Keys) (rows store.Rows, err error) {
	l := loading{keys: k}
	if len(k.Queues) > 0 && k.Depth > 0 {
		l.queues = queuesQuery(len(k.Queues))
	}
	queries := len(k.VMs) + len(k.Commands)
	if l.queues != "" {
		queries += len(k.VMs)
	}
	if queries == 0 {
		return rows, nil
	}
	err = db.load(ctx, func(c *conn) error {
		l.conn = c
		if queries == 1 { // a single query is consistent
			return l.load(ctx)
		}
		return c.transact(ctx, "BEGIN", func() error { return l.load(ctx) })
	})
	if err != nil {
		return store.Rows{}, err
	}
	return l.rows, nil
}

// loading is a Load in progress.
type loading struct {
	keys   store.Keys
	queues string // the query for a VM's queues; empty for none
	conn   *conn
	rows   store.Rows
	damage damage
}

const (
	vmByID      = "SELECT " + vmColumns + " FROM vms WHERE vm_id = ?"
	commandByID = "SELECT " + commandColumns + " FROM commands WHERE id = ?"
	headOfQueue = "SELECT " + commandColumns + " FROM (SELECT " + commandColumns +
		" FROM commands WHERE vm_id = ? AND queue = ? ORDER BY seq LIMIT ?)"
)

// queuesQuery returns the query for the heads of this many queues.
func queuesQuery(queues int) string {
	return strings.TrimSuffix(strings.Repeat(headOfQueue+" UNION ALL ", queues), " UNION ALL ")
}

// load checks between two rows whether ctx has ended. Its queries do not watch ctx: that
// would cost more than the queries, which are short.
func (l *loading) load(ctx context.Context) error {
	unwatched := context.WithoutCancel(ctx)
	vms, commands := map[string]bool{}, map[string]bool{} // already loaded
	for _, id := range l.keys.VMs {
		if vms[id] {
			continue
		}
		vms[id] = true
		if err := errors.Join(ctx.Err(), l.vm(unwatched, id, commands)); err != nil {
			return err
		}
	}
	for _, id := range l.keys.Commands {
		if commands[id] {
			continue
		}
		commands[id] = true
		found, err := query(unwatched, l.conn, scanCommand, commandByID, id)
		if err := errors.Join(ctx.Err(), l.damage.noteAll(err)); err != nil {
			return err
		}
		l.rows.Commands = append(l.rows.Commands, found...)
	}
	if err := l.damage.err(); err != nil {
		return err
	}
	return l.asides(unwatched)
}

// vm loads a VM with its queues, and adds their commands to loaded.
func (l *loading) vm(ctx context.Context, id string, loaded map[string]bool) error {
	found, err := query(ctx, l.conn, scanVM, vmByID, id)
	if err := l.damage.noteAll(err); err != nil {
		return err
	}
	l.rows.VMs = append(l.rows.VMs, found...)
	if l.queues == "" {
		return nil
	}
	args := make([]any, 0, 3*len(l.keys.Queues))
	for _, queue := range l.keys.Queues {
		args = append(args, id, queue, l.keys.Depth)
	}
	commands, err := query(ctx, l.conn, scanCommand, l.queues, args...)
	if err := l.damage.noteAll(err); err != nil {
		return err
	}
	for _, c := range commands {
		if !loaded[c.ID] {
			loaded[c.ID] = true
			l.rows.Commands = append(l.rows.Commands, c)
		}
	}
	return nil
}

const (
	dueVMs      = "SELECT " + vmColumns + " FROM vms WHERE due_at <= ? ORDER BY due_at LIMIT ?"
	dueCommands = "SELECT " + commandColumns + " FROM commands WHERE due_at <= ? ORDER BY due_at LIMIT ?"
)

// Due lists the VMs and the commands that are due, earliest first.
func (db *DB) Due(ctx context.Context, now time.Time, limit int) (rows store.Rows, more bool, err error) {
	err = db.load(ctx, func(c *conn) (err error) {
		at := now.UnixNano()
		var moreVMs, moreCommands bool
		var damage damage
		rows.VMs, moreVMs, err = page(ctx, c, scanVM, limit, dueVMs, at, oneMore(limit))
		if err := damage.noteAll(err); err != nil {
			return err
		}
		rows.Commands, moreCommands, err = page(ctx, c, scanCommand, limit, dueCommands, at, oneMore(limit))
		more = moreVMs || moreCommands
		return cmp.Or(damage.noteAll(err), damage.err())
	})
	if err != nil {
		return store.Rows{}, false, err
	}
	return rows, more, nil
}
