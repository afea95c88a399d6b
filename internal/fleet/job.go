package fleet

import "time"

// jobOf returns the job that an event names; an empty job if it names none.
func jobOf(e Event) *Job {
	m := e.members()
	return &Job{
		JobID: m.name("job_id"), RunID: m.name("run_id"), Repository: m.text("repository"), Branch: m.text("branch"),
		Commit: m.text("commit"), StartedAt: e.SentAt,
	}
}

// startJob records the job that the VM runs. Fields that this report lacks are kept, and so
// is the start time: agents in the field send the time of each report as the start.
func (v VM) startJob(j Job) VM {
	if !v.SpentAt.IsZero() { // its runner takes more than one job
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

// with returns a newer report of the same job, with fields that it lacks taken from j.
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

// endJob records that the job has ended, and with it the runner, unless it takes several
// jobs: the runners of agents in the field are ephemeral.
func (v VM) endJob(at time.Time) VM {
	v.Job = nil
	if !v.Persistent && v.SpentAt.IsZero() {
		v.SpentAt = at
	}
	return v
}

// updateJob applies what a heartbeat shows of the VM's job, unless it was sent before the
// last event about the job or in the same second: then the event takes precedence.
func (v VM) updateJob(h *Heartbeat) VM {
	switch {
	case !v.CrashedAt.IsZero(), sentBefore(h.SentAt, v.EvidenceSentAt.Add(time.Second), maxReordering):
		return v
	case h.Job != nil:
		return v.startJob(*h.Job)
	case v.Job != nil && !isStartState(h.Status): // otherwise the boot decides
		return v.endJob(h.ReceivedAt)
	default:
		return v
	}
}
