package journal

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"time"

	"github.com/mig-controller/mig-controller/internal/fleet"
)

const (
	// readAtOnce is how many names of a directory are read at a time.
	readAtOnce = 512
	// tempRetention is the time after the last write from which a temporary file counts as
	// left over from a crash.
	tempRetention = time.Hour
)

// Prune removes the files that were received longer than the retention before now, the
// temporary files that a crash left over an hour ago, and the directories of VMs that are
// then empty. It returns how many files it removed and the first error; an error with one
// VM does not affect the others.
//
// It removes only files with names of the journal, and reads only directories whose names
// are vm_ids. It does not follow symbolic links.
func (j *Journal) Prune(ctx context.Context, now time.Time) (int, error) {
	p := pruning{now: now}
	if j.retention > 0 {
		p.cutoff = now.Add(-j.retention)
	}
	removed := 0
	var first error
	for entry, err := range entries(j.root) {
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return removed, fmt.Errorf("journal: prune: %w", errors.Join(first, err))
		}
		if !entry.IsDir() || fleet.CheckID("vm_id", entry.Name()) != nil {
			continue
		}
		n, err := j.pruneVM(ctx, fleet.VMID(entry.Name()), p)
		removed += n
		if err != nil && first == nil {
			first = fmt.Errorf("journal: prune: VM %s: %w", entry.Name(), err)
		}
	}
	return removed, first
}

func (j *Journal) pruneVM(ctx context.Context, vm fleet.VMID, p pruning) (int, error) {
	dir, err := j.openVM(vm, false)
	if err != nil {
		return 0, unlessGone(err)
	}
	defer func() { _ = dir.Close() }()
	removed, kept := 0, 0
	for entry, err := range entries(dir) {
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return removed, err
		}
		if !p.expired(dir, entry) {
			kept++
			continue
		}
		if err := unlessGone(dir.Remove(entry.Name())); err != nil {
			return removed, err
		}
		removed++
	}
	if kept > 0 {
		return removed, nil
	}
	return removed, j.removeEmpty(vm)
}

// removeEmpty removes the VM's directory unless it is no longer empty.
func (j *Journal) removeEmpty(vm fleet.VMID) error {
	j.dirs.Lock()
	defer j.dirs.Unlock()
	// A directory that is not empty counts as existing.
	if err := j.root.Remove(string(vm)); !errors.Is(err, fs.ErrExist) {
		return unlessGone(err)
	}
	return nil
}

// pruning contains the settings of one run of Prune.
type pruning struct {
	now    time.Time
	cutoff time.Time // zero: files are kept forever
}

func (p pruning) expired(dir *os.Root, entry fs.DirEntry) bool {
	if !entry.Type().IsRegular() {
		return false
	}
	if at, ok := parseName(entry.Name()); ok {
		return at.Before(p.cutoff)
	}
	if !isTemp(entry.Name()) {
		return false
	}
	info, err := dir.Lstat(entry.Name())
	return err == nil && info.ModTime().Before(p.now.Add(-tempRetention))
}

// entries yields the entries of a directory, reading a bounded number at a time.
func entries(dir *os.Root) iter.Seq2[fs.DirEntry, error] {
	return func(yield func(fs.DirEntry, error) bool) {
		f, err := dir.Open(".")
		if err != nil {
			yield(nil, err)
			return
		}
		defer func() { _ = f.Close() }()
		for {
			some, err := f.ReadDir(readAtOnce)
			for _, entry := range some {
				if !yield(entry, nil) {
					return
				}
			}
			if errors.Is(err, io.EOF) {
				return
			}
			if err != nil {
				yield(nil, err)
				return
			}
		}
	}
}

func unlessGone(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
