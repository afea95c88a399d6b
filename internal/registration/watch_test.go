package registration_test

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/internal/registration"
	"github.com/mig-controller/mig-controller/internal/testkit"
)

const (
	noTokenLine = `level=WARN msg="the token file contains no valid registration token"`
	oldLine     = `level=WARN msg="the token file is old: its registration token has expired, unless it is valid for longer than an hour"`
	mendedLine  = `level=INFO msg="the token file is valid again"`
)

// writeToken writes a file with this modification time.
func writeToken(t *testing.T, file, content string, at time.Time) {
	t.Helper()
	require.NoError(t, os.WriteFile(file, []byte(content), 0o600))
	require.NoError(t, os.Chtimes(file, at, at))
}

// lines is a log that can be read while it is being written.
type lines = testkit.Buffer

func watchLog(l *lines) *slog.Logger { return slog.New(slog.NewTextHandler(l, nil)) }

// Each state of a token file is logged when it begins, and not again while it lasts. No
// message contains the token, or when it expires.
func TestFileWatch(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "token")
	now := start
	var log lines
	w := registration.NewFileWatch(file, func() time.Time { return now }, watchLog(&log), nil)
	write := func(content string, at time.Time) func() {
		return func() { writeToken(t, file, content, at) }
	}
	for _, step := range []struct {
		name string
		do   func()
		want string
	}{
		{"no file", func() {}, noTokenLine},
		{"a fresh one", write(secret, start), mendedLine},
		{"just before an hour", func() { now = start.Add(time.Hour - 1) }, ""},
		{"an hour later", func() { now = start.Add(time.Hour) }, oldLine},
		{"replaced", write(secret, start.Add(time.Minute)), mendedLine},
		{"replaced by an old one", write(secret, start.Add(-time.Hour)), oldLine},
		{"emptied", write(" \n", now), noTokenLine},
		{"not well formed", write(secret+" x", now), noTokenLine},
		{"from the future", write(secret, start.Add(24*time.Hour)), mendedLine},
		{"gone", func() { require.NoError(t, os.Remove(file)) }, noTokenLine},
		{"old again", write(secret, start.Add(-48*time.Hour)), oldLine},
	} {
		log.Reset()
		step.do()
		for range 3 {
			w.Look(t.Context())
		}
		if step.want == "" {
			require.Empty(t, log.String(), step.name)
			continue
		}
		require.Equal(t, 1, strings.Count(log.String(), "\n"), step.name+log.String())
		require.Contains(t, log.String(), step.want, step.name)
		require.Contains(t, log.String(), "token_file="+file, step.name)
		requireNoToken(t, log.String(), step.name)
	}
	require.Contains(t, log.String(), "written_at="+start.Add(-48*time.Hour).Format("2006-01-02T15:04:05"))
	require.NotContains(t, log.String(), start.Add(-47*time.Hour).Format("2006-01-02T15:04"), "when it expires is a guess")
}

// A file that cannot be used is logged with the reason, and a new reason is logged again.
func TestFileWatchSaysWhy(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var log lines
	registration.NewFileWatch(dir, clock, watchLog(&log), nil).Look(t.Context())
	require.Contains(t, log.String(), noTokenLine+" token_file="+dir+` reason="it is not a regular file"`)
	log.Reset()
	w := registration.NewFileWatch(filepath.Join(dir, "x"), clock, watchLog(&log), nil)
	w.Look(t.Context())
	require.Contains(t, log.String(), `reason="no such file or directory"`)
	writeToken(t, filepath.Join(dir, "x"), "", start)
	w.Look(t.Context())
	require.Contains(t, log.String(), `reason="it is empty"`)
}

// The file is checked when the watch begins, and then every 15 seconds.
func TestFileWatchRuns(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "token")
		writeToken(t, file, secret, time.Now())
		var log lines
		w := registration.NewFileWatch(file, time.Now, watchLog(&log), nil)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() { defer close(ended); w.Run(ctx) }()
		time.Sleep(time.Hour - time.Second) // fake clock
		synctest.Wait()
		require.Empty(t, log.String())
		time.Sleep(time.Second) // fake clock
		synctest.Wait()
		require.Contains(t, log.String(), oldLine)
		writeToken(t, file, secret, time.Now())
		time.Sleep(15 * time.Second) // fake clock
		synctest.Wait()
		require.Contains(t, log.String(), mendedLine)
		cancel()
		<-ended

		require.NoError(t, os.Remove(file))
		registration.NewFileWatch(file, time.Now, watchLog(&log), nil).Run(ctx)
		require.Contains(t, log.String(), noTokenLine, "it checks before it waits")
	})
}

// Changed is called once when the file contains a different token. The first token is not
// different, nor is the same one written again, or found again after the file could not be
// used.
func TestFileWatchNotifiesOfAnotherToken(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "token")
	var log lines
	w := registration.NewFileWatch(file, clock, watchLog(&log), nil)
	type key struct{}
	ctx, changes := context.WithValue(t.Context(), key{}, "the look's"), 0
	w.Changed = func(ctx context.Context) {
		require.Equal(t, "the look's", ctx.Value(key{}))
		changes++
	}
	write := func(content string, at time.Time) func() {
		return func() { writeToken(t, file, content, at) }
	}
	remove := func() { require.NoError(t, os.Remove(file)) }
	for _, step := range []struct {
		name string
		do   func()
		want int
	}{
		{"no file", func() {}, 0},
		{"the first", write(secret, start), 0},
		{"the same, later", write(secret, start.Add(time.Minute)), 0},
		{"the same, with space around it", write("\n "+secret+"\n", start.Add(time.Minute)), 0},
		{"another", write(secret+"2", start.Add(time.Minute)), 1},
		{"emptied", write("", start.Add(time.Minute)), 0},
		{"the same after that", write(secret+"2", start.Add(time.Minute)), 0},
		{"not well formed", write(secret+" 2", start), 0},
		{"the same after that as well", write(secret+"2", start), 0},
		{"gone", remove, 0},
		{"back", write(secret+"2", start), 0},
		{"gone again", remove, 0},
		{"back with another", write(secret+"3", start), 1},
		{"another at the same time", write(secret+"4", start), 1},
		{"an old one", write(secret, start.Add(-48*time.Hour)), 1},
	} {
		step.do()
		changes = 0
		for range 3 {
			w.Look(ctx)
		}
		require.Equal(t, step.want, changes, step.name)
	}
	requireNoToken(t, log.String(), "the log")
	w.Changed = nil
	writeToken(t, file, secret+"5", start)
	w.Look(ctx)
}
