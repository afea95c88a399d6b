package app

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/internal/config"
)

// pipe is a fake file. It blocks while hold is locked, and fails after space bytes.
type pipe struct {
	hold sync.Mutex

	mu    sync.Mutex
	bytes bytes.Buffer
	space int
}

var errPipe = errors.New("no space")

func (p *pipe) Write(b []byte) (int, error) {
	p.hold.Lock()
	defer p.hold.Unlock()
	p.mu.Lock()
	defer p.mu.Unlock()
	n := min(len(b), p.space)
	p.space -= n
	p.bytes.Write(b[:n])
	if n < len(b) {
		return n, errPipe
	}
	return n, nil
}

func (p *pipe) makeSpace(n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.space = n
}

func (p *pipe) String() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.bytes.String()
}

func lostForTest(n int) []byte { return fmt.Appendf(nil, "%d lost\n", n) }

// Logging does not wait for a blocked reader. Dropped lines are counted, and reported where
// they are missing.
func TestLinesDoNotBlock(t *testing.T) {
	t.Parallel()
	out := &pipe{space: 1 << 30}
	q := newLineQueue(out, lostForTest)
	out.hold.Lock()
	line := strings.Repeat("x", 999) + "\n" // which leaves space for a short one
	write := func(lines string) {
		n, err := q.Write([]byte(lines))
		require.NoError(t, err)
		require.Len(t, lines, n)
	}
	const written = 3 * maxUnwritten / 1000
	for range written {
		write(line)
	}
	write("short, but later than what was left out\n")
	out.hold.Unlock()
	require.Eventually(t, func() bool { return strings.HasSuffix(out.String(), " lost\n") }, 10*time.Second, time.Millisecond)
	write("after\n")
	flush(q)
	require.NotContains(t, out.String(), "short")
	all, after, found := strings.Cut(out.String(), " lost\n")
	require.True(t, found)
	require.Equal(t, "after\n", after)
	all, lost, found := cutLast(all, "\n")
	require.True(t, found)
	kept := strings.Count(all+"\n", line)
	require.LessOrEqual(t, kept, 2*maxUnwritten/1000)
	require.Equal(t, strconv.Itoa(written+1-kept), lost)
}

func cutLast(s, sep string) (before, after string, found bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(sep):], true
}

// After a file could not be written for a while, as on a full disk, the number of missing
// lines is reported. A partial line ends before the next one.
func TestUnwrittenLinesAreCounted(t *testing.T) {
	t.Parallel()
	out := &pipe{space: 7}
	q := newLineQueue(out, lostForTest)
	step := func(lines string) {
		_, err := q.Write([]byte(lines))
		require.NoError(t, err)
		require.Eventually(t, func() bool {
			out.hold.Lock()
			defer out.hold.Unlock()
			return out.full()
		}, 10*time.Second, time.Millisecond)
	}
	step("one\ntwo\nthree\n")
	out.makeSpace(1 << 20)
	_, err := q.Write([]byte("four\n"))
	require.NoError(t, err)
	flush(q)
	require.Equal(t, "one\ntwo\n2 lost\nfour\n", out.String())
}

func (p *pipe) full() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.space == 0
}

// The end of the process waits for the log, but not for one that is not read.
func TestFlushIsBounded(t *testing.T) {
	t.Parallel()
	out := &pipe{space: 1 << 20}
	out.hold.Lock()
	q := newLineQueue(out, nil)
	_, err := q.Write([]byte("line\n"))
	require.NoError(t, err)
	began := time.Now()
	flush(q, q)
	require.GreaterOrEqual(t, time.Since(began), flushTime)
	require.Less(t, time.Since(began), 10*time.Second)
	out.hold.Unlock()
	<-q.done
	require.Equal(t, "line\n", out.String())
}

// The report of missing lines has the format of the log, and is written at every level.
func TestLostLines(t *testing.T) {
	t.Parallel()
	text := lostLines(config.Options{LogLevel: "error", LogFormat: "text"}, 3)
	require.Regexp(t, `^\S+Z WARN  log lines left out: they could not be written in time  suppressed=3\n$`, string(text))
	requireJSONLines(t, string(lostLines(config.Options{LogLevel: "error", LogFormat: "json"}, 3)), "log lines left out")
}
