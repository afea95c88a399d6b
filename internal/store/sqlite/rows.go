package sqlite

import (
	"database/sql"
	"hash/fnv"
	"time"

	"github.com/mig-controller/mig-controller/internal/store"
)

// The columns of rows, in the order in which they are scanned, the key first.
const (
	vmColumns        = "rowid, vm_id, pool_id, org_id, status, connected, last_seen_at, due_at, version, doc"
	commandColumns   = "seq, id, vm_id, type, state, queue, due_at, finished_at, version, doc"
	eventColumns     = "seq, vm_id, type, received_at, doc"
	heartbeatColumns = "seq, at, docs"
	tokenColumns     = "rowid, id, version, doc" //nolint:gosec // names of columns
	auditColumns     = "seq, at, principal, action, vm_id, command_id, outcome, doc"
	changeColumns    = "c.seq, c.at, c.vm_id, c.pool_id, c.left_pool_id, c.kind, c.event_seq, COALESCE(c.doc, e.doc)"
	// changesWithEvents joins changes with the events that contain their documents.
	changesWithEvents = "changes c LEFT JOIN events e ON e.seq = c.event_seq"
)

func scanVM(r *sql.Rows) (v store.VMRow, err error) {
	err = r.Scan((*number)(&v.Row), (*text)(&v.ID), (*text)(&v.Pool), (*text)(&v.Org), (*text)(&v.Status), (*flag)(&v.Connected),
		(*moment)(&v.LastSeenAt), (*anyMoment)(&v.DueAt), (*counter)(&v.Version), (*document)(&v.Doc))
	return v, damagedAt(store.ClassVMs, v.Row, err)
}

func scanCommand(r *sql.Rows) (c store.CommandRow, err error) {
	err = r.Scan((*number)(&c.Seq), (*text)(&c.ID), (*text)(&c.VM), (*text)(&c.Type), (*text)(&c.State), (*anyText)(&c.Queue),
		(*anyMoment)(&c.DueAt), (*anyMoment)(&c.FinishedAt), (*counter)(&c.Version), (*document)(&c.Doc))
	return c, damagedAt(store.ClassCommands, c.Seq, err)
}

func scanEvent(r *sql.Rows) (e store.EventRow, err error) {
	err = r.Scan((*number)(&e.Seq), (*text)(&e.VM), (*text)(&e.Type), (*moment)(&e.ReceivedAt), (*document)(&e.Doc))
	return e, damagedAt(store.ClassEvents, e.Seq, err)
}

func scanHeartbeats(r *sql.Rows) (h store.HeartbeatRow, err error) {
	err = r.Scan((*number)(&h.Seq), (*moment)(&h.At), (*document)(&h.Doc))
	return h, damagedAt(store.ClassHeartbeats, h.Seq, err)
}

func scanToken(r *sql.Rows) (t store.TokenRow, err error) {
	err = r.Scan((*number)(&t.Row), (*text)(&t.ID), (*counter)(&t.Version), (*document)(&t.Doc))
	return t, damagedAt(store.ClassTokens, t.Row, err)
}

func scanAudit(r *sql.Rows) (a store.AuditRow, err error) {
	err = r.Scan((*number)(&a.Seq), (*moment)(&a.At), (*text)(&a.Principal), (*text)(&a.Action), (*anyText)(&a.VM),
		(*anyText)(&a.Command), (*text)(&a.Outcome), (*document)(&a.Doc))
	return a, damagedAt(store.ClassAudit, a.Seq, err)
}

func scanChange(r *sql.Rows) (c store.ChangeRow, err error) {
	err = r.Scan((*number)(&c.Seq), (*moment)(&c.At), (*text)(&c.VM), (*anyText)(&c.Pool), (*anyText)(&c.Left),
		(*text)(&c.Kind), (*anyNumber)(&c.EventSeq), (*document)(&c.Doc))
	return c, damagedAt(store.ClassChanges, c.Seq, err)
}

// zeroTime represents no time in a column that is not nullable.
var zeroTime = time.Time{}.UnixNano()

func timeOf(nanoseconds int64) time.Time {
	if nanoseconds == zeroTime {
		return time.Time{}
	}
	return time.Unix(0, nanoseconds).UTC()
}

// timeOrNull converts a time for a nullable column.
func timeOrNull(at time.Time) any {
	if at.IsZero() {
		return nil
	}
	return at.UnixNano()
}

// textOrNull converts a text for a nullable column.
func textOrNull(s string) any {
	if s == "" {
		return nil
	}
	return s
}

// blob converts a document for a column that is not nullable.
func blob(doc []byte) []byte {
	if doc == nil {
		return []byte{}
	}
	return doc
}

// hashes returns the concatenated hashes of the VMs in a row of heartbeats.
func hashes(vms ...string) []byte {
	all := make([]byte, 0, 8*len(vms))
	h := fnv.New64a()
	for _, vm := range vms {
		h.Reset()
		_, _ = h.Write([]byte(vm)) // never fails
		all = h.Sum(all)
	}
	return all
}
