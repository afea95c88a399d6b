package fleet

import (
	"encoding/json"
	"time"
)

// jobOf returns the job that an event names. Over HTTP its fields are those of the
// event, on a stream those of its data. An event without any is still about a job.
func jobOf(e Event) *Job {
	var body struct {
		jobFields
		Data jobFields `json:"data"`
	}
	_ = json.Unmarshal(e.Body, &body) // what cannot be read is not shown
	f := body.jobFields
	if f == (jobFields{}) {
		f = body.Data
	}
	return &Job{
		JobID: string(f.JobID), RunID: string(f.RunID), Repository: string(f.Repository), Branch: string(f.Branch),
		Commit: string(f.Commit), StartedAt: e.SentAt,
	}
}

type jobFields struct {
	JobID      looseText `json:"job_id"`
	RunID      looseText `json:"run_id"`
	Repository looseText `json:"repository"`
	Branch     looseText `json:"branch"`
	Commit     looseText `json:"commit"`
}

// looseText is a text; a number counts as one, and anything else as none.
type looseText string

// UnmarshalJSON implements json.Unmarshaler. It never fails.
func (t *looseText) UnmarshalJSON(b []byte) error {
	var text string
	var number json.Number
	switch {
	case json.Unmarshal(b, &text) == nil:
		*t = looseText(text)
	case json.Unmarshal(b, &number) == nil:
		*t = looseText(number)
	}
	return nil
}

// jobStarted notes the job that the VM runs. What was known of it stays where this
// report lacks it, and so does its beginning: builds in the field give the time of
// each report for that.
func (v VM) jobStarted(j Job) VM {
	if !v.SpentAt.IsZero() { // its runner takes more than one
		v.SpentAt, v.Persistent = time.Time{}, true
	}
	if old := v.Job; old != nil && old.JobID == j.JobID && old.RunID == j.RunID {
		j = old.with(j)
		if *old == j {
			return v
		}
	}
	v.Job = &j
	return v
}

// with returns a newer report of the same job, completed from the one before.
func (j *Job) with(o Job) Job {
	for _, f := range []struct {
		to   *string
		from string
	}{{&o.Repository, j.Repository}, {&o.Branch, j.Branch}, {&o.Commit, j.Commit}, {&o.Status, j.Status}} {
		if *f.to == "" {
			*f.to = f.from
		}
	}
	if !j.StartedAt.IsZero() {
		o.StartedAt = j.StartedAt
	}
	return o
}

// jobEnded notes that the job is over, and with it, unless it takes more than one, the
// runner: those of builds in the field are ephemeral.
func (v VM) jobEnded(at time.Time) VM {
	v.Job = nil
	if !v.Persistent && v.SpentAt.IsZero() {
		v.SpentAt = at
	}
	return v
}

// jobShown takes over what a heartbeat shows of the VM's job, unless it was sent before
// the last event about that, or in the same second: the event then knows better.
func (v VM) jobShown(h *Heartbeat) VM {
	switch {
	case !v.CrashedAt.IsZero(), sentBefore(h.SentAt, v.EvidenceSentAt.Add(time.Second), latest):
		return v
	case h.Job != nil:
		return v.jobStarted(*h.Job)
	case v.Job != nil && !startsIn(h.Status): // else the boot decides
		return v.jobEnded(h.ReceivedAt)
	default:
		return v
	}
}
