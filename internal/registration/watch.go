package registration

import (
	"context"
	"crypto/sha256"
	"log/slog"
	"time"

	"github.com/mig-controller/mig-controller/internal/logkey"
)

// The keys of log lines.
const (
	keyFile    = "token_file"
	keyWritten = "written_at"
)

// lookEvery is how often a FileWatch looks at its file.
const lookEvery = 15 * time.Second

// FileWatch logs what is wrong with a token file: that it gives no token, or that it is
// older than its tokens live. Each state is logged once, when it begins, and so is that
// the file is in order again. It is for one goroutine.
type FileWatch struct {
	path  string
	clock func() time.Time
	log   *slog.Logger
	last  fileState
	token [sha256.Size]byte // a sum of the last that was read; zero for none

	// Changed is called when the file has another token than before. It may be nil.
	Changed func(context.Context)
}

// fileState is what is wrong with a token file; the zero value is for nothing.
type fileState struct {
	old bool
	// reason is why there is no token, empty while there is one.
	reason string
}

// NewFileWatch returns a FileWatch for the file at path, which begins as one that is in
// order.
func NewFileWatch(path string, clock func() time.Time, log *slog.Logger) *FileWatch {
	return &FileWatch{path: path, clock: clock, log: log.With(keyFile, path)}
}

// Run looks at the file at once, and then at intervals until ctx ends.
func (w *FileWatch) Run(ctx context.Context) {
	tick := time.NewTicker(lookEvery)
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

// Look looks at the file once.
func (w *FileWatch) Look(ctx context.Context) {
	var now fileState
	token, written, err := readToken(w.path)
	if err == nil {
		err = checkToken(token)
	}
	if err != nil {
		now.reason = reason(err)
	} else {
		w.compare(ctx, token)
		now.old = w.clock().Sub(written) >= tokenLifetime
	}
	if now == w.last {
		return
	}
	w.last = now
	switch {
	case now.reason != "":
		w.log.Warn("the token file gives no registration token", logkey.Reason, now.reason)
	case now.old:
		w.log.Warn("the token file is old: its registration token has expired, unless it lives longer than an hour",
			keyWritten, written)
	default:
		w.log.Info("the token file is in order again")
	}
}

// compare calls Changed when the token differs from the one before.
func (w *FileWatch) compare(ctx context.Context, token string) {
	before := w.token
	w.token = sha256.Sum256([]byte(token))
	if before != ([sha256.Size]byte{}) && before != w.token && w.Changed != nil {
		w.Changed(ctx)
	}
}
