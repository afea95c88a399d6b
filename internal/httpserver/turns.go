package httpserver

import "runtime"

// turns delay the service of new connections while the process is busy, and refuse none. One
// begins each time everything that could run before it has run. Without them, thousands of
// agents that connect at once have thousands of goroutines that can run, and each step of every
// request waits behind all of them.
//
// Each listener has its own, so that those who use one address do not wait for agents that
// connect to the other.
type turns chan struct{}

func newTurns() turns { return make(turns, 1) }

// wait returns when it is the caller's turn, or done is closed. Callers are served in order.
func (t turns) wait(done <-chan struct{}) {
	if t.begin(done) {
		runtime.Gosched() // puts this goroutine behind all that can run
		t.end()
	}
}

// begin waits for the turn of the caller, and returns false if done is closed before. After
// true, end must follow.
func (t turns) begin(done <-chan struct{}) bool {
	select {
	case t <- struct{}{}: // a channel serves its senders in order
		return true
	case <-done:
		return false
	}
}

func (t turns) end() { <-t }
