package sqlite

import (
	"database/sql"
	"hash/fnv"
	"time"

	"github.com/mig-controller/mig-controller/internal/store"
)

// The columns of rows, in the order in which they are scanned.
const (
	vmColumns      = "vm_id, pool_id, org_id, status, connected, last_seen_at, due_at, version, doc"
	commandColumns = "seq, id, vm_id, type, state, queue, due_at, finished_at, version, doc"
	eventColumns   = "seq, vm_id, type, received_at, doc"
)

func scanVM(r *sql.Rows) (v store.VMRow, err error) {
	var seen int64
	var due sql.NullInt64
	err = r.Scan(&v.ID, &v.Pool, &v.Org, &v.Status, &v.Connected, &seen, &due, &v.Version, &v.Doc)
	v.LastSeenAt, v.DueAt = timeOf(seen), timeOrZero(due)
	return v, err
}

func scanCommand(r *sql.Rows) (c store.CommandRow, err error) {
	var queue sql.NullString
	var due, finished sql.NullInt64
	err = r.Scan(&c.Seq, &c.ID, &c.VM, &c.Type, &c.State, &queue, &due, &finished, &c.Version, &c.Doc)
	c.Queue, c.DueAt, c.FinishedAt = queue.String, timeOrZero(due), timeOrZero(finished)
	return c, err
}

func scanEvent(r *sql.Rows) (e store.EventRow, err error) {
	var received int64
	err = r.Scan(&e.Seq, &e.VM, &e.Type, &received, &e.Doc)
	e.ReceivedAt = timeOf(received)
	return e, err
}

func scanHeartbeats(r *sql.Rows) (h store.HeartbeatRow, err error) {
	var at int64
	err = r.Scan(&at, &h.Doc)
	h.At = timeOf(at)
	return h, err
}

func scanChange(r *sql.Rows) (c store.ChangeRow, err error) {
	var at int64
	var event sql.NullInt64
	err = r.Scan(&c.Seq, &at, &c.VM, &c.Kind, &event, &c.Doc)
	c.At, c.EventSeq = timeOf(at), event.Int64
	return c, err
}

// zeroTime stands for no time in a column that is never null.
var zeroTime = time.Time{}.UnixNano()

func timeOf(nanoseconds int64) time.Time {
	if nanoseconds == zeroTime {
		return time.Time{}
	}
	return time.Unix(0, nanoseconds).UTC()
}

func timeOrZero(nanoseconds sql.NullInt64) time.Time {
	if !nanoseconds.Valid {
		return time.Time{}
	}
	return timeOf(nanoseconds.Int64)
}

// timeOrNull is the form of a time in a column that is null for none.
func timeOrNull(at time.Time) any {
	if at.IsZero() {
		return nil
	}
	return at.UnixNano()
}

// textOrNull is the form of a text in a column that is null for none.
func textOrNull(s string) any {
	if s == "" {
		return nil
	}
	return s
}

// blob is the form of a document in a column that is never null.
func blob(doc []byte) []byte {
	if doc == nil {
		return []byte{}
	}
	return doc
}

// hashes returns the hashes of the VMs in a row of heartbeats, one after the other.
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
