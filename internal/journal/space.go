package journal

import (
	"errors"
	"log/slog"
	"sync"
)

// ErrPaused occurs when no files are written because too little space is free.
var ErrPaused = errors.New("the journal is paused: too little space is free")

// AutoMinFree is 1 GiB, or a twentieth of the file system if that is less.
const AutoMinFree = -1

const (
	autoMinFree = 1 << 30
	autoShare   = 20
	// resumeShare is which part of the limit must be free on top of it for a journal
	// to resume that was paused.
	resumeShare = 10
)

// Space is how many bytes of a file system are free for this process, and how many there
// are.
type Space struct{ Free, Total uint64 }

// space decides whether there is space for files.
type space struct {
	min     int64
	measure func() (Space, error)
	log     *slog.Logger

	mu      sync.Mutex
	paused  bool
	leftOut uint64 // heartbeat files since it was paused
}

// enough reports whether files may be written, as of now. When the answer changes, it is
// logged. What cannot be measured leaves it as it was.
func (s *space) enough() bool {
	if s.min == 0 {
		return true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	now, err := s.measure()
	if err != nil {
		return !s.paused
	}
	required := s.required(now.Total)
	switch {
	case !s.paused && now.Free < required:
		s.paused, s.leftOut = true, 0
		s.log.Warn("journal paused: too little space is free", keyFree, now.Free, keyRequired, required)
	case s.paused && now.Free >= required+required/resumeShare:
		s.paused = false
		s.log.Info("journal resumed", keyFree, now.Free, keyRequired, required, keyHeartbeatsLeftOut, s.leftOut)
	}
	return !s.paused
}

func (s *space) required(total uint64) uint64 {
	if s.min < 0 {
		return min(autoMinFree, total/autoShare)
	}
	return uint64(s.min)
}

func (s *space) leaveOut() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.leftOut++
}

// Paused reports whether no files are written at the moment because too little space is
// free; it measures that.
func (j *Journal) Paused() bool { return !j.space.enough() }
