package faults

import (
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// floods has the agent send events of 60 KiB as fast as its stream accepts them, with the
// requested acks in between, until the test or the stream ends.
func (a *agent) floods(t *testing.T) (acks chan<- string) {
	t.Helper()
	ids := make(chan string, 10)
	event := eventOf(a.vm, "flood", strings.Repeat("x", 60<<10))
	var sending sync.WaitGroup
	sending.Go(func() {
		for {
			select {
			case id := <-ids:
				if a.ackNow(id) != nil {
					return
				}
			default:
				if a.stream.SendMsg(event) != nil {
					return
				}
			}
		}
	})
	t.Cleanup(func() {
		a.reset()
		sending.Wait()
	})
	return ids
}

// An agent that sends events endlessly is throttled: its cost is bounded, its own acks are
// not late, and another agent on its connection is not affected, even if there are more
// such agents than fit into the connection's window.
func testEventFlood(t *testing.T) {
	c := startController(t)
	conn := dial(t, c.addr)
	neighbour := openAccepted(t, conn, "vm-neighbour")
	neighbour.register(t)
	a := openAccepted(t, conn, "vm-flood")
	a.register(t)
	began, acks := time.Now(), a.floods(t)
	c.awaitLine(t, `"level":"WARN"`, ofMessage("agent throttled"), ofVM("vm-flood"), `"rule":`)
	c.send(t, "vm-flood", "behind", withAckTimeout(time.Second))
	a.expect(t, "behind")
	acks <- "behind"
	c.requirePromptUntil(t, neighbour, "one", began.Add(5*time.Second))
	c.awaitEnd(t, "behind", succeeded)
	require.EqualValues(t, 1, c.command(t, "behind").GetAttempts())
	require.Less(t, c.diskUsed(t), int64(40<<20), "it is not throttled")

	for _, vm := range []string{"vm-2", "vm-3", "vm-4"} {
		openAccepted(t, conn, vm).floods(t)
	}
	c.awaitLine(t, ofMessage("agent disconnected"), ofCause("throttled"))
	c.requirePromptUntil(t, neighbour, "many", time.Now().Add(2*time.Second))
	requireSameSession(t, c, neighbour)
}

// unblocked is the maximum time for a command and its ack on a busy machine. Commands that
// wait for a held stream take longer.
const unblocked = 4 * time.Second

// requirePromptUntil requires that commands reach an agent, and its acks the controller,
// within unblocked each.
func (c *controller) requirePromptUntil(t *testing.T, a *agent, prefix string, end time.Time) {
	t.Helper()
	for i := 0; i == 0 || time.Now().Before(end); i++ {
		round, began := fmt.Sprint(prefix, "-", i), time.Now()
		c.send(t, a.vm, round)
		a.expect(t, round)
		a.ack(t, round)
		c.awaitEnd(t, round, succeeded)
		require.Less(t, time.Since(began), unblocked, "the agent is blocked")
	}
}

// diskUsed returns the total size of the controller's data.
func (c *controller) diskUsed(t *testing.T) (size int64) {
	t.Helper()
	require.NoError(t, filepath.WalkDir(c.dataDir(t), func(_ string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return nil //nolint:nilerr // a file that was removed meanwhile
		}
		if info, err := entry.Info(); err == nil {
			size += info.Size()
		}
		return nil
	}))
	return size
}

// While less space is free than required, events are stored without files, and everything
// else continues. When there is enough the files appear.
func testLowSpace(t *testing.T) {
	c := startController(t, "--min-free-space=1000000TiB")
	a := c.connectRegistered(t, "vm-1")
	c.awaitLine(t, `"level":"WARN"`, ofMessage("journal paused: too little space is free"), `"free_bytes":`)
	require.Len(t, c.events(t, "vm-1", "runner_registered"), 1)
	requireSameSession(t, c, a)
	status, text := c.ready(t)
	require.Equal(t, http.StatusOK, status, text)
	_, err := os.Stat(filepath.Join(c.dataDir(t), "vm-1"))
	require.ErrorIs(t, err, fs.ErrNotExist)
	c.terminate(t)
	require.Empty(t, c.out.lines(`"level":"ERROR"`))

	c.options = append(c.options, "--min-free-space=0")
	c.start(t)
	await(t, func() bool {
		files, err := filepath.Glob(filepath.Join(c.dataDir(t), "vm-1", "grpc-event-runner_registered-*.json"))
		return err == nil && len(files) == 1
	}, "the event gets no file")
}
