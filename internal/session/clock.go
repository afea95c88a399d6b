package session

import (
	"sync"
	"time"

	"github.com/mig-controller/mig-controller/internal/wallclock"
)

// times stamps reports and guards the liveness of all sessions, so that both move at once when
// the clock steps.
type times struct {
	mu   sync.Mutex
	last int64 // the latest stamp in Unix nanoseconds; it moves with the clock
}

// next returns now, or the first nanosecond after the latest stamp. The caller holds mu.
func (t *times) next(now time.Time) time.Time {
	t.last = max(now.UnixNano(), t.last+1)
	return time.Unix(0, t.last).UTC()
}

// receivedAt returns the current time, after every stamp since the latest step of the clock:
// the time of receipt identifies a report. After a step backwards a stamp could repeat an
// earlier one; even then the journal overwrites no file.
func (r *Registry) receivedAt() time.Time {
	r.times.mu.Lock()
	defer r.times.mu.Unlock()
	return r.times.next(r.Clock())
}

// MoveClock calls adopt, which makes Clock step, and moves the times of all sessions with it.
// The engine moves those of reports that were passed to it. MoveClock takes no lock of a
// session.
func (r *Registry) MoveClock(adopt func() wallclock.Jump) (j wallclock.Jump) {
	r.unstored.move(func() time.Duration {
		r.times.mu.Lock()
		defer r.times.mu.Unlock()
		j = adopt()
		r.times.last += int64(j.By)
		r.configuredAt.Add(int64(j.By))
		for _, s := range r.sessions.all() {
			s.liveness = s.liveness.ShiftTimes(j.By)
		}
		r.beats.move(j.By)
		return j.By
	})
	return j
}

// move moves the times of arrival by the result of step. None is added meanwhile.
func (u *unstored) move(step func() time.Duration) {
	u.mu.Lock()
	defer u.mu.Unlock()
	by := step()
	for id, at := range u.at {
		u.at[id] = at.Add(by)
	}
}

// move moves the times that oldest returns.
func (b *heartbeats) move(by time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.first = wallclock.Shift(b.first, by)
	b.storing = wallclock.Shift(b.storing, by)
}
