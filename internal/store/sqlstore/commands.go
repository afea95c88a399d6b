package sqlstore

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/mig-controller/mig-controller/internal/fleet"
)

// Enqueue keeps a pending command, or one that is claimed at once.
func (db *DB) Enqueue(
	ctx context.Context, c fleet.Command, now func() time.Time,
) (kept fleet.Command, err error) {
	err = db.update(ctx, func(t *tx) error {
		claimed, err := t.claimedIfFree(c, now)
		if err != nil {
			return err
		}
		kept, err = t.addCommand(c, claimed)
		if !errors.Is(err, errThere) {
			return err
		}
		existing, err := t.command(c.ID)
		switch {
		case err != nil:
			return err
		case !existing.SameRequest(c):
			return fleet.ErrIDTaken
		}
		kept = existing
		return nil
	})
	return kept, err
}

// claimedIfFree returns a new command, claimed for the live session of its VM if
// there is one and nothing is before it.
func (t *tx) claimedIfFree(c fleet.Command, now func() time.Time) (fleet.Command, error) {
	v, err := t.vm(c.VM)
	if errors.Is(err, fleet.ErrNotFound) {
		return c, nil
	}
	if err != nil {
		return c, err
	}
	at := now()
	claimed := c.Offered(v, at)
	if claimed.State == c.State {
		return c, nil // without a look at a queue that may be long
	}
	if open, err := t.queue(c.VM, at); err != nil || len(open) > 0 {
		return c, err
	}
	return claimed, nil
}

// Cancel takes a command back.
func (db *DB) Cancel(ctx context.Context, id fleet.CommandID, now time.Time) (c fleet.Command, err error) {
	err = db.update(ctx, func(t *tx) error {
		var err error
		if c, err = t.command(id); err != nil {
			return err
		}
		cancelled, err := c.Cancelled(now)
		if err != nil || c.State == fleet.Cancelled {
			return err
		}
		c = cancelled
		return t.putCommand(c, now)
	})
	return c, err
}

const openOf = `SELECT seq, doc FROM commands WHERE vm_id = ? AND due_at IS NOT NULL ORDER BY seq`

// Queue returns the open commands of the VM up to the first that decides.
func (db *DB) Queue(ctx context.Context, vm fleet.VMID, now time.Time) ([]fleet.Command, error) {
	if v, ok := db.writer.cache.get(vm); ok && v.queue.known {
		return v.queue.open, nil
	}
	return query(ctx, db, untilDecided(now), openOf, string(vm))
}

// untilDecided scans open commands up to the first that decides.
func untilDecided(now time.Time) func(*sql.Rows) (fleet.Command, error) {
	decided := false
	return func(r *sql.Rows) (fleet.Command, error) {
		if decided {
			return fleet.Command{}, errEnough
		}
		c, err := scanCommand(r)
		decided = c.Decides(now)
		return c, err
	}
}

func (t *tx) command(id fleet.CommandID) (fleet.Command, error) {
	return t.oneCommand(`SELECT seq, doc FROM commands WHERE id = ?`, string(id))
}

// commandOf is command for one that is likely to be in the queue of the VM.
func (t *tx) commandOf(vm fleet.VMID, id fleet.CommandID) (fleet.Command, error) {
	if e := t.vms[vm]; e != nil {
		for _, c := range e.queue.open {
			if c.ID == id {
				return c, nil
			}
		}
	}
	return t.command(id)
}

// queue returns the open commands of the VM, oldest first, at least up to the
// first that decides what is delivered next.
func (t *tx) queue(vm fleet.VMID, now time.Time) ([]fleet.Command, error) {
	e, err := t.entry(vm)
	if err != nil {
		return nil, err
	}
	if e.queue.known {
		return e.queue.open, nil
	}
	open, err := t.allCommands(scanCommand, openOf+` LIMIT ?`, string(vm), maxQueued+1)
	if err != nil {
		return nil, err
	}
	if e.queue = queueOf(open); e.queue.known {
		return open, nil
	}
	return t.allCommands(untilDecided(now), openOf, string(vm))
}

func (t *tx) allCommands(
	scan func(*sql.Rows) (fleet.Command, error), query string, args ...any,
) ([]fleet.Command, error) {
	s, err := t.stmt(query) //nolint:sqlclosecheck // closed by the writer
	if err != nil {
		return nil, err
	}
	rows, err := s.QueryContext(unstoppable, args...)
	if err != nil {
		return nil, err
	}
	return collect(rows, scan)
}

func scanCommand(r *sql.Rows) (fleet.Command, error) {
	var seq int64
	var doc []byte
	if err := r.Scan(&seq, &doc); err != nil {
		return fleet.Command{}, err
	}
	return decodeCommand(seq, doc)
}

func (t *tx) oneCommand(query string, args ...any) (c fleet.Command, err error) {
	var seq int64
	var doc []byte
	if err := t.scan(query, args, []any{&seq, &doc}); err != nil {
		return c, err
	}
	return decodeCommand(seq, doc)
}

func decodeCommand(seq int64, doc []byte) (c fleet.Command, err error) {
	if err := json.Unmarshal(doc, &c); err != nil {
		return c, fmt.Errorf("%w: read command: %w", errBroken, err)
	}
	c.Seq = seq
	return c, nil
}

// commandRoom is enough for the document of most commands.
const commandRoom = 640

// errThere occurs when a command with the same id is there already.
var errThere = errors.New("the command is there already")

// addCommand inserts a new command as it was accepted and has moved on since, if
// it has, or returns errThere.
func (t *tx) addCommand(accepted, c fleet.Command) (fleet.Command, error) {
	e, err := t.entry(c.VM)
	if err != nil {
		return c, err
	}
	doc, err := c.AppendJSON(make([]byte, 0, commandRoom))
	if err != nil {
		return c, fmt.Errorf("write command: %w", err)
	}
	res, err := t.run(`INSERT INTO commands (id, vm_id, type, state, due_at, finished_at, doc)
		VALUES (?, ?, ?, ?, ?, NULL, ?) ON CONFLICT (id) DO NOTHING`,
		string(c.ID), string(c.VM), c.Type, string(c.State), unixOrNull(c.DueAt), doc)
	if err != nil {
		return c, fmt.Errorf("write command: %w", err)
	}
	switch added, err := res.RowsAffected(); {
	case err != nil:
		return c, fmt.Errorf("write command: %w", err)
	case added == 0:
		return c, errThere
	}
	if c.Seq, err = res.LastInsertId(); err != nil {
		return c, fmt.Errorf("write command: %w", err)
	}
	e.queue = e.queue.added(c)
	if c.State == accepted.State {
		return c, t.commandChanged(c, doc, c.AcceptedAt)
	}
	accepted.Seq = c.Seq
	if err := t.commandChanged(accepted, nil, c.AcceptedAt); err != nil {
		return c, err
	}
	return c, t.commandChanged(c, doc, c.Last.At)
}

// putCommand writes a command that has moved on, and what its end means to the
// registration of its VM.
func (t *tx) putCommand(c fleet.Command, now time.Time) error {
	doc, err := t.writeCommand(c)
	if err != nil {
		return err
	}
	if c.Type == fleet.RegisterRunner && c.State.Terminal() {
		switch v, err := t.vm(c.VM); {
		case err == nil:
			v.TokenWait = fleet.TokenWait{}
			t.putVM(v.RegistrationEnded(c), now)
		case !errors.Is(err, fleet.ErrNotFound):
			return err
		}
	}
	return t.commandChanged(c, doc, now)
}

// writeCommand writes the row of a command and returns its document.
func (t *tx) writeCommand(c fleet.Command) (doc []byte, err error) {
	e, err := t.entry(c.VM)
	if err != nil {
		return nil, err
	}
	if doc, err = c.AppendJSON(make([]byte, 0, commandRoom)); err != nil {
		return nil, fmt.Errorf("write command: %w", err)
	}
	if err := t.exec(`UPDATE commands SET state = ?, due_at = ?, finished_at = ?, doc = ? WHERE seq = ?`,
		string(c.State), unixOrNull(c.DueAt), unixOrNull(c.FinishedAt), doc, c.Seq); err != nil {
		return nil, fmt.Errorf("write command: %w", err)
	}
	e.queue = e.queue.moved(c)
	return doc, nil
}

// commandChanged appends the command, whose document is doc if that is there
// already, to the log of changes.
func (t *tx) commandChanged(c fleet.Command, doc []byte, now time.Time) (err error) {
	outline := c.Outline()
	if doc == nil || !c.Params.Equal(outline.Params) {
		if doc, err = outline.AppendJSON(make([]byte, 0, commandRoom)); err != nil {
			return fmt.Errorf("write change: %w", err)
		}
	}
	return t.change(fleet.Change{At: now, Subject: c.VM, Command: &outline}, nil, doc, nil)
}
