package diskspace

import "syscall"

// measure returns the space of the file system that path is on.
func measure(path string) (Space, error) {
	var s syscall.Statfs_t
	if err := syscall.Statfs(path, &s); err != nil {
		return Space{}, err
	}
	block := uint64(max(s.Frsize, 1))
	return Space{Free: s.Bavail * block, Total: s.Blocks * block}, nil
}
