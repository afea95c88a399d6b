package registration

import (
	"context"
	"crypto/sha256"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/mig-controller/mig-controller/internal/logkey"
)

// The log attributes.
const (
	keyFile    = "token_file"
	keyWritten = "written_at"
)

// checkEvery is how often a FileWatch checks its file.
const checkEvery = 15 * time.Second

// FileWatch logs problems of a token file: that it contains no valid token, or that it is
// older than tokens are valid. Each state is logged once, when it begins, and so is the
// return to a valid file. It is not safe for concurrent use.
type FileWatch struct {
	path  string
	clock func() time.Time
	log   *slog.Logger
	last  fileState
	token [sha256.Size]byte // hash of the last one read; zero for none
	// written is when the file was written that was valid at the last check; nil if it was not.
	written atomic.Pointer[time.Time]

	// Changed is called when the file contains a different token than before. It may be
	// nil.
	Changed func(context.Context)
}

// fileState is the problem of a token file; the zero value means none.
type fileState struct {
	old bool
	// reason is why there is no token, empty if there is one.
	reason string
}

// NewFileWatch returns a FileWatch for the file at path, which is assumed to be valid at
// first. It registers its metrics with r; nil registers none.
func NewFileWatch(path string, clock func() time.Time, log *slog.Logger, r prometheus.Registerer) *FileWatch {
	w := &FileWatch{path: path, clock: clock, log: log.With(keyFile, path)}
	w.register(r)
	return w
}

// Run checks the file immediately, and then at intervals until ctx ends.
func (w *FileWatch) Run(ctx context.Context) {
	tick := time.NewTicker(checkEvery)
	defer tick.Stop()
	for {
		w.Look(ctx)
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// Look checks the file once.
func (w *FileWatch) Look(ctx context.Context) {
	var now fileState
	token, written, err := readToken(w.path)
	if err == nil {
		err = checkToken(token)
	}
	if err != nil {
		now.reason = reason(err)
		w.setWritten(time.Time{})
	} else {
		w.setWritten(written)
		w.compare(ctx, token)
		now.old = w.clock().Sub(written) >= tokenLifetime
	}
	if now == w.last {
		return
	}
	w.last = now
	switch {
	case now.reason != "":
		w.log.Warn("the token file contains no valid registration token", logkey.Reason, now.reason)
	case now.old:
		w.log.Warn("the token file is old: its registration token has expired, unless it is valid for longer than an hour",
			keyWritten, written)
	default:
		w.log.Info("the token file is valid again")
	}
}

// compare calls Changed when the token differs from the previous one.
func (w *FileWatch) compare(ctx context.Context, token string) {
	before := w.token
	w.token = sha256.Sum256([]byte(token))
	if before != ([sha256.Size]byte{}) && before != w.token && w.Changed != nil {
		w.Changed(ctx)
	}
}
