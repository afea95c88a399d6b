//go:build !unix

package app

import "time"

// processorTime says that it is not known here.
func processorTime() (time.Duration, bool) { return 0, false }
