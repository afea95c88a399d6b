package fleet

import (
	"encoding/json"
	"reflect"
	"strconv"
	"time"
)

// AppendJSON appends the same document as json.Marshal in a fraction of the time: most of
// the traffic of a fleet is heartbeats.
func (h Heartbeat) AppendJSON(b []byte) ([]byte, error) {
	if h.Body != nil { // only few agents have no stream
		doc, err := json.Marshal(h)
		return append(b, doc...), err
	}
	b = append(b, '{')
	b = h.Origin.appendFields(b)
	b = appendText(b, "status", h.Status)
	if h.Runner != nil {
		b = h.Runner.appendObject(appendName(b, "runner"))
	}
	b = appendText(b, "runner_state", h.RunnerState)
	if h.Job != nil {
		b = h.Job.appendObject(appendName(b, "job"))
	}
	return append(h.appendLoad(b), '}'), nil
}

// AppendJSON appends the same document as json.Marshal in a fraction of the time: a command
// is written at every step.
func (c Command) AppendJSON(b []byte) ([]byte, error) {
	b = append(b, '{')
	b = appendString(appendName(b, "id"), string(c.ID))
	b = appendString(appendName(b, "vm"), string(c.VM))
	b = appendString(appendName(b, "type"), c.Type)
	if !reflect.ValueOf(c.Params).IsZero() {
		doc, err := json.Marshal(c.Params)
		if err != nil {
			return b, err
		}
		b = append(appendName(b, "params"), doc...)
	}
	b = appendTime(appendName(b, "created_at"), c.CreatedAt)
	b = appendTime(appendName(b, "accepted_at"), c.AcceptedAt)
	b = appendTime(appendName(b, "expires_at"), c.ExpiresAt)
	b = strconv.AppendInt(appendName(b, "ack_timeout"), int64(c.AckTimeout), 10)
	b = appendNumber(b, "max_deliveries", int64(c.MaxDeliveries))
	b = appendString(appendName(b, "state"), string(c.State))
	if c.Last != (Delivery{}) {
		b = c.Last.appendObject(appendName(b, "last"))
	}
	b = appendNumber(b, "attempts", int64(c.Attempts))
	b = appendSetTime(b, "due_at", c.DueAt)
	b = appendSetTime(b, "finished_at", c.FinishedAt)
	if c.Ack != nil {
		doc, err := json.Marshal(c.Ack)
		if err != nil {
			return b, err
		}
		b = append(appendName(b, "ack"), doc...)
	}
	b = appendSetTime(b, "acked_at", c.AckedAt)
	b = appendText(b, "reason", c.Reason)
	return append(b, '}'), nil
}

func (d Delivery) appendObject(b []byte) []byte {
	b = append(b, '{')
	b = appendText(b, "via", string(d.Via))
	b = appendNumber(b, "epoch", int64(d.Epoch))
	b = appendNumber(b, "boot", d.Boot)
	b = appendSetTime(b, "at", d.At)
	if d.Started {
		b = append(appendName(b, "started"), "true"...)
	}
	return append(b, '}')
}

func (h Heartbeat) appendLoad(b []byte) []byte {
	if h.Health == nil {
		return b
	}
	return h.Health.appendObject(appendName(b, "health"))
}

func (o Origin) appendFields(b []byte) []byte {
	b = appendString(appendName(b, "vm"), string(o.VM))
	b = appendText(b, "pool", o.Pool)
	b = appendText(b, "org", o.Org)
	b = appendString(appendName(b, "via"), string(o.Via))
	b = appendNumber(b, "epoch", int64(o.Epoch))
	return o.appendTimes(b)
}

func (o Origin) appendTimes(b []byte) []byte {
	b = appendTime(appendName(b, "received_at"), o.ReceivedAt)
	return appendSetTime(b, "sent_at", o.SentAt)
}

func (r *Runner) appendObject(b []byte) []byte {
	b = append(b, '{')
	b = appendText(b, "state", r.State)
	if r.Configured {
		b = append(appendName(b, "configured"), "true"...)
	}
	b = appendText(b, "name", r.Name)
	if len(r.Labels) > 0 {
		b = append(appendName(b, "labels"), '[')
		for i, label := range r.Labels {
			if i > 0 {
				b = append(b, ',')
			}
			b = appendString(b, label)
		}
		b = append(b, ']')
	}
	return append(b, '}')
}

func (j *Job) appendObject(b []byte) []byte {
	b = append(b, '{')
	b = appendText(b, "job_id", j.JobID)
	b = appendText(b, "run_id", j.RunID)
	b = appendText(b, "repository", j.Repository)
	b = appendText(b, "branch", j.Branch)
	b = appendText(b, "commit", j.Commit)
	b = appendText(b, "status", j.Status)
	b = appendSetTime(b, "started_at", j.StartedAt)
	return append(b, '}')
}

func (h Health) appendObject(b []byte) []byte {
	b = append(b, '{')
	b = appendPercent(b, "cpu_percent", h.CPUPercent)
	b = appendPercent(b, "memory_percent", h.MemoryPercent)
	b = appendPercent(b, "disk_percent", h.DiskPercent)
	b = appendNumber(b, "memory_total_bytes", h.MemoryTotalBytes)
	b = appendNumber(b, "memory_used_bytes", h.MemoryUsedBytes)
	b = appendNumber(b, "disk_total_bytes", h.DiskTotalBytes)
	b = appendNumber(b, "disk_used_bytes", h.DiskUsedBytes)
	return append(b, '}')
}

// appendName begins an object member.
func appendName(b []byte, name string) []byte {
	if b[len(b)-1] != '{' {
		b = append(b, ',')
	}
	b = append(b, '"')
	b = append(b, name...)
	return append(b, '"', ':')
}

// appendText appends a member that is omitted when it is empty.
func appendText(b []byte, name, s string) []byte {
	if s == "" {
		return b
	}
	return appendString(appendName(b, name), s)
}

func appendString(b []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c >= 0x7f || c == '"' || c == '\\' || c == '<' || c == '>' || c == '&' {
			quoted, _ := json.Marshal(s) //nolint:errchkjson // cannot fail for a string
			return append(b, quoted...)
		}
	}
	b = append(b, '"')
	b = append(b, s...)
	return append(b, '"')
}

func appendTime(b []byte, t time.Time) []byte {
	b = append(b, '"')
	b = t.AppendFormat(b, time.RFC3339Nano)
	return append(b, '"')
}

// appendSetTime appends a member that is omitted when it is zero.
func appendSetTime(b []byte, name string, t time.Time) []byte {
	if t.IsZero() {
		return b
	}
	return appendTime(appendName(b, name), t)
}

func appendPercent(b []byte, name string, f *float64) []byte {
	if f == nil {
		return b
	}
	b = appendName(b, name)
	if *f >= 1e-6 && *f < 1e21 || *f == 0 {
		return strconv.AppendFloat(b, *f, 'f', -1, 64)
	}
	doc, err := json.Marshal(*f)
	if err != nil { // not finite: omit it; callers should have done so
		doc = []byte("null")
	}
	return append(b, doc...)
}

// appendNumber appends a member that is omitted when it is zero.
func appendNumber(b []byte, name string, n int64) []byte {
	if n == 0 {
		return b
	}
	return strconv.AppendInt(appendName(b, name), n, 10)
}
