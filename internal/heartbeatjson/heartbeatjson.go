// Package heartbeatjson owns a fast JSON encoder for heartbeats: most messages of a fleet are
// heartbeats, and json.Marshal takes five times as long, which would be a third of the cost of
// a heartbeat under full load:
//
//	go test ./internal/heartbeatjson -run - -bench .
package heartbeatjson

import (
	"encoding/json"
	"strconv"
	"time"

	"github.com/mig-controller/mig-controller/internal/fleet"
)

// Append appends the heartbeat as json.Marshal encodes it. A load that is NaN or infinite,
// which json.Marshal cannot encode, becomes null.
func Append(b []byte, h *fleet.Heartbeat) ([]byte, error) {
	if h.Body != nil { // only from agents without a stream, which are few
		doc, err := json.Marshal(h)
		return append(b, doc...), err
	}
	b = append(b, '{')
	b = appendOrigin(b, h.Origin)
	b = appendText(b, "status", h.Status)
	if h.Runner != nil {
		b = appendRunner(appendName(b, "runner"), h.Runner)
	}
	b = appendText(b, "runner_state", h.RunnerState)
	if h.Job != nil {
		b = appendJob(appendName(b, "job"), h.Job)
	}
	if h.Health != nil {
		b = appendHealth(appendName(b, "health"), h.Health)
	}
	return append(b, '}'), nil
}

func appendOrigin(b []byte, o fleet.Origin) []byte {
	b = appendString(appendName(b, "vm"), string(o.VM))
	b = appendText(b, "pool", o.Pool)
	b = appendText(b, "org", o.Org)
	b = appendString(appendName(b, "via"), string(o.Via))
	b = appendNumber(b, "epoch", int64(o.Epoch))
	b = appendTime(appendName(b, "received_at"), o.ReceivedAt)
	return appendSetTime(b, "sent_at", o.SentAt)
}

func appendRunner(b []byte, r *fleet.Runner) []byte {
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

func appendJob(b []byte, j *fleet.Job) []byte {
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

func appendHealth(b []byte, h *fleet.Health) []byte {
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

// appendText appends a member unless it is empty.
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

// appendSetTime appends a member unless it is zero.
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
	if err != nil { // NaN or infinite
		doc = []byte("null")
	}
	return append(b, doc...)
}

// appendNumber appends a member unless it is zero.
func appendNumber(b []byte, name string, n int64) []byte {
	if n == 0 {
		return b
	}
	return strconv.AppendInt(appendName(b, name), n, 10)
}
