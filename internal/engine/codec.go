package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/mig-controller/mig-controller/internal/fleet"
	"github.com/mig-controller/mig-controller/internal/store"
)

// encoding is the version of the documents. It is raised with each change of what they
// have, since a program that does not know a member drops it when it writes the document
// again. encodingMark is the mark of the latest version that has written to a database.
const (
	encoding     = 1
	encodingMark = "encoding"
)

// errLaterEncoding occurs when a later version of the program has written to the database.
var errLaterEncoding = errors.New("a later version of the program has written to the database")

// checkEncoding returns errLaterEncoding for a database that this program would damage,
// and otherwise marks it with the version that it writes.
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

// errDamaged occurs when a record cannot be decoded: retrying is useless.
var errDamaged = errors.New("the record is damaged")

func damaged(what, id string, err error) error {
	return fmt.Errorf("%s %s: %w: %w", what, id, errDamaged, err)
}

func encodeVM(v fleet.VM, version store.Version) (store.VMRow, error) {
	doc, err := json.Marshal(v)
	if err != nil {
		return store.VMRow{}, fmt.Errorf("write VM %s: %w", v.ID, err)
	}
	return store.VMRow{
		ID: string(v.ID), Pool: v.Pool, Org: v.Org, Status: v.Status, Connected: v.Connected,
		LastSeenAt: v.LastSeenAt, DueAt: v.DueAt, Version: version, Doc: doc,
	}, nil
}

func decodeVM(row store.VMRow) (v fleet.VM, err error) {
	if err := json.Unmarshal(row.Doc, &v); err != nil {
		return fleet.VM{}, damaged("VM", row.ID, err)
	}
	return v, nil
}

// commandRoom is a size, in bytes, that the documents of most commands fit in.
const commandRoom = 640

func encodeCommand(c fleet.Command) (store.CommandRow, error) {
	doc, err := c.AppendJSON(make([]byte, 0, commandRoom))
	if err != nil {
		return store.CommandRow{}, fmt.Errorf("write command %s: %w", c.ID, err)
	}
	return store.CommandRow{
		Seq: c.Seq, ID: string(c.ID), VM: string(c.VM), Type: c.Type, State: string(c.State), Queue: string(c.Queue()),
		DueAt: c.DueAt, FinishedAt: c.FinishedAt, Version: store.Version(c.Version), Doc: doc,
	}, nil
}

func decodeCommand(row store.CommandRow) (c fleet.Command, err error) {
	if err := json.Unmarshal(row.Doc, &c); err != nil {
		return fleet.Command{}, damaged("command", row.ID, err)
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
		return fleet.Event{}, damaged("event of VM", row.VM, err)
	}
	e.Seq = row.Seq
	return e, nil
}

func decodeChange(row store.ChangeRow) (c fleet.Change, err error) {
	c = fleet.Change{Seq: row.Seq, At: row.At, Subject: fleet.VMID(row.VM)}
	switch {
	case row.Kind == kindVM:
		c.VM = new(fleet.VM)
		err = json.Unmarshal(row.Doc, c.VM)
	case row.Kind == kindCommand:
		c.Command = new(fleet.Command)
		err = json.Unmarshal(row.Doc, c.Command)
	case len(row.Doc) > 0:
		c.Event = &fleet.Event{Seq: row.EventSeq}
		err = json.Unmarshal(row.Doc, c.Event)
	default: // the event is no longer kept
		c.Event = &fleet.Event{Seq: row.EventSeq, Origin: fleet.Origin{VM: c.Subject, ReceivedAt: c.At}}
	}
	if err != nil {
		return c, damaged("change of VM", row.VM, err)
	}
	return c, nil
}

// decoded decodes rows.
func decoded[R, T any](rows []R, decode func(R) (T, error)) ([]T, error) {
	all := make([]T, 0, len(rows))
	for _, row := range rows {
		t, err := decode(row)
		if err != nil {
			return nil, err
		}
		all = append(all, t)
	}
	return all, nil
}
