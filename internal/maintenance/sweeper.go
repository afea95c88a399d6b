package maintenance

import (
	"context"
	"errors"
	"time"

	"github.com/mig-controller/mig-controller/internal/wallclock"
)

const (
	sweepEvery = 250 * time.Millisecond
	sweepBatch = 1000
	// silenceEvery is how often all sessions are checked for silence, at 150 ns each.
	silenceEvery = time.Second
)

// sweeper ends the commands that have timed out and the sessions whose agents are gone, and
// retries the ends of sessions that could not be stored. First it makes everything follow the
// wall clock.
type sweeper struct {
	Options
	grace   grace
	checked time.Time // when sessions were last checked for silence
	unmoved bool      // some times have not moved with the clock yet
}

func newSweeper(o Options) *sweeper { return &sweeper{Options: o} }

func (s *sweeper) run(ctx context.Context) {
	every(ctx, sweepEvery, s.Log.With(keyService, "sweep"), s.sweep)
}

func (s *sweeper) sweep(ctx context.Context) error {
	by, unmoved := s.followClock(ctx)
	s.grace.move(by)
	s.checked = wallclock.Shift(s.checked, by)
	now := s.Sessions.OldestUnstored(s.grace.asOf(s.Clock()))
	if passed := now.Sub(s.checked); passed < 0 || passed >= silenceEvery {
		s.checked = now
		s.Sessions.EndSilent(now)
	}
	if unmoved != nil {
		return errors.Join(unmoved, s.Sessions.RecordEnds(ctx))
	}
	return errors.Join(s.Sessions.RecordEnds(ctx), s.tick(ctx, now))
}

// tick ends the commands that have timed out as of now.
func (s *sweeper) tick(ctx context.Context, now time.Time) error {
	for {
		_, more, err := s.Engine.Tick(ctx, now, s.Sessions.Live, sweepBatch)
		if err != nil || !more {
			return err
		}
	}
}

// followClock adopts the wall clock if it has jumped, and returns by how much. After an error
// not everything has moved with the latest jump yet: no deadline must be judged until a call
// succeeds.
func (s *sweeper) followClock(ctx context.Context) (by time.Duration, err error) {
	if !s.unmoved && s.Follow != nil && s.Follow.Off() != 0 {
		j, err := s.Engine.AdoptClock(ctx, func() wallclock.Jump { return s.Sessions.MoveClock(s.Follow.Adopt) })
		if err != nil {
			return 0, err
		}
		if by = j.By; by != 0 {
			s.unmoved = true
			s.Log.Warn("the clock jumped", keyBy, by.String(), keyFrom, j.At.Add(-by), keyTo, j.At)
		}
	}
	if s.unmoved {
		err = s.Engine.MoveDeadlines(ctx)
		s.unmoved = err != nil
	}
	return by, err
}
