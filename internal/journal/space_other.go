//go:build !linux && !darwin && !freebsd

package journal

import "errors"

// measureSpace fails: the space is unknown on this system, and the journal is never paused.
func measureSpace(string) (Space, error) { return Space{}, errors.ErrUnsupported }
