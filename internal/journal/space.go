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
	// resumeShare is the fraction of the limit that must be free in addition to it for a
	// paused journal to resume.
	resumeShare = 10
)

// Space is how many bytes of a file system are free for this process, and its size.
type Space struct{ Free, Total uint64 }

// space decides whether there is space for files.
type space struct {
	min     int64
	measure func() (Space, error)
	log     *slog.Logger

	mu      sync.Mutex
	paused  bool
	leftOut uint64 // heartbeat files skipped since it was paused
}

// enough reports whether files may be written now. Changes of the answer are logged. A
// failed measurement does not change it.
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

func (s *space) skip() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.leftOut++
}

// Paused measures the space and reports whether no files are written because too little is
// free.
func (j *Journal) Paused() bool { return !j.space.enough() }
