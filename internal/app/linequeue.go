package app

import (
	"bytes"
	"io"
	"sync"
	"time"
)

const (
	// maxUnwritten is how many bytes of lines wait to be written at most. As many
	// again may be on their way.
	maxUnwritten = 4 << 20
	// maxReused is how large a buffer is kept.
	maxReused = 64 << 10
	// flushTime is how long the end of the process waits for lines to be written. It
	// comes on top of patience.total.
	flushTime = 400 * time.Millisecond
)

// lineQueue writes lines to a file that may block, as a pipe does that nobody reads,
// or fail. Write never does either: beyond maxUnwritten, lines are left out and counted,
// until some have been written. lost makes the line that is written in their place, with
// the next line that can be written; nil stands for none.
type lineQueue struct {
	out  io.Writer
	lost func(lines int) []byte

	mu      sync.Mutex
	waiting []byte // whole lines
	refused int    // how many lines are missing after them
	closed  bool

	more chan struct{} // holds one
	done chan struct{} // closed when all is written and the queue is closed

	// The writer's own.
	missing int  // lines that are not written and not reported
	torn    bool // what was written last is not a whole line
}

// newLineQueue returns a queue that writes to out; flush ends it.
func newLineQueue(out io.Writer, lost func(lines int) []byte) *lineQueue {
	q := &lineQueue{out: out, lost: lost, more: make(chan struct{}, 1), done: make(chan struct{})}
	go q.run()
	return q
}

// Write takes whole lines. It does not block and does not fail.
func (q *lineQueue) Write(lines []byte) (int, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	// Once a line is left out, so are those after it: what reports them stands where
	// they are missing.
	if q.refused > 0 || len(q.waiting)+len(lines) > maxUnwritten {
		q.refused += countLines(lines)
	} else {
		q.waiting = append(q.waiting, lines...)
	}
	q.signal()
	return len(lines), nil
}

func (q *lineQueue) signal() {
	select {
	case q.more <- struct{}{}:
	default:
	}
}

// flush closes queues and waits until they are written, for flushTime at most. What
// is not written by then may never be.
func flush(queues ...*lineQueue) {
	for _, q := range queues {
		q.close()
	}
	over := time.NewTimer(flushTime)
	defer over.Stop()
	for _, q := range queues {
		select {
		case <-q.done:
		case <-over.C:
			return
		}
	}
}

func (q *lineQueue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	q.signal()
}

func (q *lineQueue) run() {
	defer close(q.done)
	var reused []byte
	for range q.more {
		lines, refused, closed := q.take(reused)
		q.write(lines, refused)
		if reused = lines[:0]; cap(reused) > maxReused {
			reused = nil
		}
		if closed {
			return
		}
	}
}

// take takes what waits and leaves reused to be filled.
func (q *lineQueue) take(reused []byte) (lines []byte, refused int, closed bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	lines, refused = q.waiting, q.refused
	q.waiting, q.refused = reused, 0
	return lines, refused, q.closed
}

// write writes lines, reports what is missing before them, and refused, which are
// missing after them.
func (q *lineQueue) write(lines []byte, refused int) {
	if q.report() {
		q.missing += q.put(lines)
	} else {
		q.missing += countLines(lines)
	}
	q.missing += refused
	q.report()
}

// report writes how many lines are missing, if any are, and returns whether that
// succeeded.
func (q *lineQueue) report() bool {
	if q.missing == 0 || q.lost == nil {
		return true
	}
	line := q.lost(q.missing)
	if q.torn {
		line = append([]byte{'\n'}, line...)
	}
	if q.put(line) > 0 {
		return false
	}
	q.missing = 0
	return true
}

// put writes lines and returns how many of them are missing or torn.
func (q *lineQueue) put(lines []byte) (missing int) {
	if len(lines) == 0 {
		return 0
	}
	n, err := q.out.Write(lines)
	if n > 0 {
		q.torn = lines[n-1] != '\n'
	}
	if err == nil {
		return 0
	}
	return countLines(lines[n:])
}

func countLines(b []byte) int { return bytes.Count(b, []byte{'\n'}) }
