//go:build !linux && !darwin && !freebsd

package diskspace

import "errors"

// measure fails: the space is unknown on this system.
func measure(string) (Space, error) { return Space{}, errors.ErrUnsupported }
