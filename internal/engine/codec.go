package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/mig-controller/mig-controller/internal/fleet"
	"github.com/mig-controller/mig-controller/internal/store"
)

// encoding is the version of the document format. Every change of the members raises it,
// since a program that does not know a member drops it when it rewrites the document.
// encodingMark is the mark of the latest version that has written to a database.
const (
	encoding     = 3
	encodingMark = "encoding"
)

// errLaterEncoding occurs when a later version of the program has written to the database.
var errLaterEncoding = errors.New("a later version of the program has written to the database")

// checkEncoding returns errLaterEncoding for a database that this program would damage;
// otherwise it marks the database with its own version.
func (e *Engine) checkEncoding(ctx context.Context) error {
	found, err := e.Driver.Mark(ctx, encodingMark)
	switch {
	case err != nil:
		return err
	case found > encoding:
		return fmt.Errorf("%w: its documents are version %d, and this program knows only versions up to %d", errLaterEncoding, found, encoding)
	case found == encoding:
		return nil
	}
	_, err = e.Driver.Commit(ctx, store.Writes{Marks: map[string]int64{encodingMark: encoding}})
	return err
}

func encodeVM(v fleet.VM, version store.Version) (store.VMRow, error) {
	doc, err := json.Marshal(v)
	if err != nil {
		return store.VMRow{}, fmt.Errorf("write VM %s: %w", v.ID, err)
	}
	row := columnsOfVM(v)
	row.Version, row.Doc = version, doc
	return row, nil
}

// columnsOfVM returns the columns of a VM's row. Rows written by any earlier version must
// have the same ones: others count as damaged.
func columnsOfVM(v fleet.VM) store.VMRow {
	return store.VMRow{
		ID: string(v.ID), Pool: v.Pool, Org: v.Org, Status: v.Status, Connected: v.Connected,
		LastSeenAt: v.LastSeenAt, DueAt: v.DueAt,
	}
}

func decodeVM(row store.VMRow) (v fleet.VM, err error) {
	if err := json.Unmarshal(row.Doc, &v); err != nil {
		return fleet.VM{}, err
	}
	want := columnsOfVM(v)
	if !sameTexts(want.ID, row.ID, want.Pool, row.Pool, want.Org, row.Org, want.Status, row.Status) ||
		want.Connected != row.Connected || !sameTimes(want.LastSeenAt, row.LastSeenAt, want.DueAt, row.DueAt) {
		return fleet.VM{}, errColumns
	}
	return v, nil
}

// errColumns occurs when the columns of a row differ from its document: queries would
// return it where it does not belong.
var errColumns = errors.New("its columns differ from its document")

// sameTexts compares texts of documents with columns, pairwise. Documents contain only
// UTF-8.
func sameTexts(pairs ...string) bool {
	for pair := range slices.Chunk(pairs, 2) {
		if pair[0] != pair[1] && pair[0] != string([]rune(pair[1])) {
			return false
		}
	}
	return true
}

// sameTimes compares times of documents with columns, pairwise.
func sameTimes(pairs ...time.Time) bool {
	for pair := range slices.Chunk(pairs, 2) {
		a, b := pair[0], pair[1]
		if a.IsZero() != b.IsZero() || a.UnixNano() != b.UnixNano() {
			return false
		}
	}
	return true
}

func encodeCommand(c fleet.Command) (store.CommandRow, error) {
	doc, err := json.Marshal(c)
	if err != nil {
		return store.CommandRow{}, fmt.Errorf("write command %s: %w", c.ID, err)
	}
	row := columnsOfCommand(c)
	row.Seq, row.Version, row.Doc = c.Seq, store.Version(c.Version), doc
	return row, nil
}

// columnsOfCommand is columnsOfVM for a command.
func columnsOfCommand(c fleet.Command) store.CommandRow {
	return store.CommandRow{
		ID: string(c.ID), VM: string(c.VM), Type: c.Type, State: string(c.State), Queue: string(c.Queue()),
		DueAt: c.DueAt, FinishedAt: c.FinishedAt,
	}
}

func decodeCommand(row store.CommandRow) (c fleet.Command, err error) {
	if err := json.Unmarshal(row.Doc, &c); err != nil {
		return fleet.Command{}, err
	}
	want := columnsOfCommand(c)
	if !sameTexts(want.ID, row.ID, want.VM, row.VM, want.Type, row.Type, want.State, row.State, want.Queue, row.Queue) ||
		!sameTimes(want.DueAt, row.DueAt, want.FinishedAt, row.FinishedAt) {
		return fleet.Command{}, errColumns
	}
	c.Seq, c.Version = row.Seq, int64(row.Version)
	return c, nil
}

func encodeEvent(e fleet.Event) (store.EventRow, error) {
	doc, err := json.Marshal(e)
	if err != nil {
		return store.EventRow{}, fmt.Errorf("write event: %w", err)
	}
	return store.EventRow{VM: string(e.VM), Type: e.Type, ReceivedAt: e.ReceivedAt, Doc: doc}, nil
}

func decodeEvent(row store.EventRow) (e fleet.Event, err error) {
	if err := json.Unmarshal(row.Doc, &e); err != nil {
		return fleet.Event{}, err
	}
	if !sameTexts(string(e.VM), row.VM, e.Type, row.Type) || !sameTimes(e.ReceivedAt, row.ReceivedAt) {
		return fleet.Event{}, errColumns
	}
	e.Seq = row.Seq
	return e, nil
}

func decodeChange(row store.ChangeRow) (c fleet.Change, err error) {
	c = fleet.Change{Seq: row.Seq, At: row.At, Subject: fleet.VMID(row.VM), Pool: row.Pool, Left: row.Left}
	subject := c.Subject
	switch {
	case row.Kind == kindVM:
		c.VM = new(fleet.VM)
		err = json.Unmarshal(row.Doc, c.VM)
		subject = c.VM.ID
	case row.Kind == kindCommand:
		c.Command = new(fleet.Command)
		err = json.Unmarshal(row.Doc, c.Command)
		subject = c.Command.VM
	case row.Kind != kindEvent || row.EventSeq == 0:
		err = errKind
	case len(row.Doc) > 0:
		c.Event = &fleet.Event{Seq: row.EventSeq}
		err = json.Unmarshal(row.Doc, c.Event)
		subject = c.Event.VM
	default: // the event is no longer kept
		c.Event = &fleet.Event{Seq: row.EventSeq, Origin: fleet.Origin{VM: c.Subject, ReceivedAt: c.At}}
	}
	if err == nil && !sameTexts(string(subject), row.VM) {
		err = errColumns
	}
	return c, err
}

// errKind occurs when a change has an unknown kind.
var errKind = errors.New("unknown kind of change")
