//go:build darwin || freebsd

package journal

import "syscall"

// measureSpace returns the space of the file system that path is on.
func measureSpace(path string) (Space, error) {
	var s syscall.Statfs_t
	if err := syscall.Statfs(path, &s); err != nil {
		return Space{}, err
	}
	block := uint64(s.Bsize)
	return Space{Free: uint64(max(s.Bavail, 0)) * block, Total: s.Blocks * block}, nil
}
