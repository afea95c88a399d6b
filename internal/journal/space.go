package journal

import (
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"

	"github.com/mig-controller/mig-controller/internal/diskspace"
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

// space decides whether there is space for files.
type space struct {
	min     int64
	measure func() (diskspace.Space, error)
	log     *slog.Logger

	mu      sync.Mutex // held while it changes
	paused  atomic.Bool
	leftOut uint64                          // heartbeat files skipped since it was paused
	last    atomic.Pointer[diskspace.Space] // nil before the first measurement
}

// enough reports whether files may be written now. Changes of the answer are logged. A
// failed measurement does not change it.
func (s *space) enough() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	now, err := s.measure()
	if err != nil {
		return !s.paused.Load()
	}
	s.last.Store(&now)
	required := s.required(now.Total)
	switch paused := s.paused.Load(); {
	case !paused && now.Free < required:
		s.leftOut = 0
		s.paused.Store(true)
		s.log.Warn("journal paused: too little space is free", keyFree, now.Free, keyRequired, required)
	case paused && now.Free >= required+required/resumeShare:
		s.paused.Store(false)
		s.log.Info("journal resumed", keyFree, now.Free, keyRequired, required, keyHeartbeatsLeftOut, s.leftOut)
	}
	return !s.paused.Load()
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
