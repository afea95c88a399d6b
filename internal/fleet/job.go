package fleet

import "time"

// jobOf returns the job that an event names. An event without any is still about a job.
func jobOf(e Event) *Job {
	m := e.members()
	return &Job{
		JobID: m.name("job_id"), RunID: m.name("run_id"), Repository: m.text("repository"), Branch: m.text("branch"),
		Commit: m.text("commit"), StartedAt: e.SentAt,
	}
}

// startJob notes the job that the VM runs. What was known of it stays where this
// report lacks it, and so does its beginning: builds in the field give the time of
// each report for that.
func (v VM) startJob(j Job) VM {
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

// endJob notes that the job is over, and with it, unless it takes more than one, the
// runner: those of builds in the field are ephemeral.
func (v VM) endJob(at time.Time) VM {
	v.Job = nil
	if !v.Persistent && v.SpentAt.IsZero() {
		v.SpentAt = at
	}
	return v
}

// updateJob takes over what a heartbeat shows of the VM's job, unless it was sent before
// the last event about that, or in the same second: the event then takes precedence.
func (v VM) updateJob(h *Heartbeat) VM {
	switch {
	case !v.CrashedAt.IsZero(), sentBefore(h.SentAt, v.EvidenceSentAt.Add(time.Second), latest):
		return v
	case h.Job != nil:
		return v.startJob(*h.Job)
	case v.Job != nil && !startsIn(h.Status): // else the boot decides
		return v.endJob(h.ReceivedAt)
	default:
		return v
	}
}
