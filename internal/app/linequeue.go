package app

import (
	"bytes"
	"io"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// maxUnwritten is the maximum size of the queued lines in bytes. Twice as much may be in
	// memory while lines are being written.
	maxUnwritten = 4 << 20
	// maxReused is the maximum size of a buffer that is kept for reuse.
	maxReused = 64 << 10
	// flushTime is how long the end of the process waits for lines to be written, in addition
	// to stopTimeouts.total.
	flushTime = 400 * time.Millisecond
)

// lineQueue writes lines to a file that may block, such as a pipe that is not read, or fail.
// Write never blocks or fails: beyond maxUnwritten, lines are dropped and counted until some
// have been written. lost returns a line that reports how many were dropped, which is written
// before the next line; nil means that nothing is reported.
type lineQueue struct {
	out  io.Writer
	lost func(lines int) []byte

	mu      sync.Mutex
	waiting []byte // whole lines
	refused int    // how many lines were dropped after them
	closed  bool

	dropped atomic.Int64 // lines that were not written

	more chan struct{} // capacity 1
	done chan struct{} // closed when the queue is closed and everything is written

	// Used only by the writing goroutine.
	missing int  // dropped lines that are not reported yet
	partial bool // the last write ended within a line
}

// newLineQueue returns a queue that writes to out; flush ends it.
func newLineQueue(out io.Writer, lost func(lines int) []byte) *lineQueue {
	q := &lineQueue{out: out, lost: lost, more: make(chan struct{}, 1), done: make(chan struct{})}
	go q.run()
	return q
}

// Write queues whole lines. It does not block and does not fail.
func (q *lineQueue) Write(lines []byte) (int, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	// After a dropped line, all are dropped until the queue is written, so that the report is
	// in the right place.
	if q.refused > 0 || len(q.waiting)+len(lines) > maxUnwritten {
		q.refused += countLines(lines)
		q.dropped.Add(int64(countLines(lines)))
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

// flush closes the queues and waits until they are written, for at most flushTime. The rest
// may be lost.
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

// take returns the queued lines, and makes reused the new buffer.
func (q *lineQueue) take(reused []byte) (lines []byte, refused int, closed bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	lines, refused = q.waiting, q.refused
	q.waiting, q.refused = reused, 0
	return lines, refused, q.closed
}

// write writes lines, and counts refused lines as missing after them. It reports missing lines
// first.
func (q *lineQueue) write(lines []byte, refused int) {
	lost := countLines(lines)
	if q.report() {
		lost = q.put(lines)
	}
	q.dropped.Add(int64(lost))
	q.missing += lost + refused
	q.report()
}

// report writes how many lines are missing, if any, and returns whether that succeeded.
func (q *lineQueue) report() bool {
	if q.missing == 0 || q.lost == nil {
		return true
	}
	line := q.lost(q.missing)
	if q.partial {
		line = append([]byte{'\n'}, line...)
	}
	if q.put(line) > 0 {
		return false
	}
	q.missing = 0
	return true
}

// put writes lines and returns how many of them were not written completely.
func (q *lineQueue) put(lines []byte) (missing int) {
	if len(lines) == 0 {
		return 0
	}
	n, err := q.out.Write(lines)
	if n > 0 {
		q.partial = lines[n-1] != '\n'
	}
	if err == nil {
		return 0
	}
	return countLines(lines[n:])
}

func countLines(b []byte) int { return bytes.Count(b, []byte{'\n'}) }
