package journal

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"syscall"

	"github.com/mig-controller/mig-controller/internal/fleet"
)

// draft is a file that is written but does not have its final name yet. close must be
// called in any case.
type draft struct {
	vm   fleet.VMID
	dir  *os.Root
	name string
	temp string // empty when there is nothing to place
}

// draft writes content next to its final place. If a file with the name exists there is
// nothing to place. synced is whether content must be synced before draft returns.
func (j *Journal) draft(vm fleet.VMID, name string, content []byte, synced bool) (*draft, error) {
	dir, err := j.openVM(vm, true)
	if err != nil {
		return nil, fmt.Errorf("VM %s: %w", vm, err)
	}
	d := &draft{vm: vm, dir: dir, name: name}
	exists, err := d.exists()
	if err == nil && !exists {
		d.temp = tempName(name, strconv.FormatUint(j.drafts.Add(1), 10))
		err = writeNew(dir, d.temp, content, synced)
	}
	if err != nil {
		d.close()
		return nil, fmt.Errorf("VM %s: %w", vm, err)
	}
	return d, nil
}

// openVM opens the directory of a VM, created first if create is set. A symbolic link is
// not followed, not even within the journal.
func (j *Journal) openVM(vm fleet.VMID, create bool) (*os.Root, error) {
	info, err := j.root.Lstat(string(vm))
	if create && errors.Is(err, fs.ErrNotExist) {
		if err = j.root.Mkdir(string(vm), dirMode); err == nil || errors.Is(err, fs.ErrExist) {
			info, err = j.root.Lstat(string(vm))
		}
	}
	if err != nil {
		return nil, err
	}
	if !info.IsDir() {
		return nil, fmt.Errorf("the name of its directory is taken: %w", syscall.ENOTDIR)
	}
	return j.root.OpenRoot(string(vm))
}

// exists reports whether the file exists under its final name.
func (d *draft) exists() (bool, error) {
	info, err := d.dir.Lstat(d.name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return false, nil
	case err != nil:
		return false, err
	case !info.Mode().IsRegular():
		return false, fmt.Errorf("%s: the name is taken: %w", d.name, fs.ErrExist)
	}
	return true, nil
}

// place gives the draft its name, unless a file with it exists, and reports whether it did.
func (d *draft) place() (bool, error) {
	if d.temp == "" {
		return false, nil
	}
	exists, err := d.exists()
	if err == nil && !exists {
		err = d.dir.Rename(d.temp, d.name)
	}
	if err != nil {
		return false, fmt.Errorf("VM %s: %w", d.vm, err)
	}
	if !exists {
		d.temp = ""
	}
	return !exists, nil
}

// close removes a draft that has not been placed. What cannot be removed now is left to
// Prune.
func (d *draft) close() {
	if d.temp != "" {
		_ = d.dir.Remove(d.temp)
	}
	_ = d.dir.Close()
}

// writeNew writes a new file, or replaces one that an earlier process left incomplete.
func writeNew(dir *os.Root, name string, content []byte, synced bool) error {
	const flags = os.O_WRONLY | os.O_CREATE | os.O_EXCL
	f, err := dir.OpenFile(name, flags, fileMode)
	if errors.Is(err, fs.ErrExist) {
		if err = dir.Remove(name); err == nil {
			f, err = dir.OpenFile(name, flags, fileMode)
		}
	}
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err == nil && synced {
		err = f.Sync()
	}
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		_ = dir.Remove(name)
	}
	return err
}

// syncDir makes the names in a directory durable. Some file systems do not support it and
// return EINVAL.
func syncDir(dir *os.Root) error {
	f, err := dir.Open(".")
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	if err := f.Sync(); err != nil && !errors.Is(err, syscall.EINVAL) {
		return err
	}
	return nil
}

// readable returns a JSON text with line breaks and indentation; text that is not JSON is
// returned unchanged.
func readable(body []byte) []byte {
	body = bytes.TrimSpace(body)
	if len(body) == 0 {
		body = []byte("{}")
	}
	var b bytes.Buffer
	b.Grow(2*len(body) + 1)
	if err := json.Indent(&b, body, "", "  "); err != nil {
		b.Reset()
		b.Write(body)
	}
	b.WriteByte('\n')
	return b.Bytes()
}

// Check writes a file to the journal's directory and removes it, and returns nil if both
// succeed. It also returns nil when the journal is paused, as that is intended.
func (j *Journal) Check() error {
	if j.Paused() {
		return nil
	}
	j.checking.Lock()
	defer j.checking.Unlock()
	err := writeNew(j.root, checkName, []byte("A file can be written here.\n"), false)
	if err == nil {
		err = j.root.Remove(checkName)
	}
	if err != nil {
		return fmt.Errorf("journal: write a file: %w", err)
	}
	return nil
}

// ofOneVM reports whether an error of WriteEvents is caused by the event or by the directory
// of its VM, which somebody has to repair. A shortage, such as of space or of open files,
// affects all VMs and passes.
func ofOneVM(err error) bool {
	if _, ok := errors.AsType[*fleet.FieldError](err); ok {
		return true
	}
	return errors.Is(err, syscall.ENOTDIR) || errors.Is(err, fs.ErrExist) || errors.Is(err, fs.ErrPermission)
}
