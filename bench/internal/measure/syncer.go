package measure

import (
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// syncer measures the time to make a page durable: it overwrites a page of an existing
// file, which is the minimum for any durable write.
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

func (s *syncer) close() { _ = s.file.Close() } // its content is not needed
