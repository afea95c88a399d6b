package measure

import (
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// syncer measures what it takes to have a page on the disk: it overwrites a
// page of a file that is there already, which is the least that can be durable.
type syncer struct {
	file *os.File
	page [4096]byte
}

func newSyncer(dir string) (*syncer, error) {
	f, err := os.Create(filepath.Join(dir, "sync"))
	if err != nil {
		return nil, err
	}
	s := &syncer{file: f}
	_, err = s.sync()
	return s, err
}

func (s *syncer) sync() (time.Duration, error) {
	s.page[0]++
	began := time.Now()
	if _, err := s.file.WriteAt(s.page[:], 0); err != nil {
		return 0, fmt.Errorf("write a page: %w", err)
	}
	if err := s.file.Sync(); err != nil {
		return 0, fmt.Errorf("sync a page: %w", err)
	}
	return time.Since(began), nil
}

func (s *syncer) close() { _ = s.file.Close() } // what it holds matters to nobody
