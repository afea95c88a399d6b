package faults

import (
	"database/sql"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
	_ "modernc.org/sqlite" // the driver "sqlite"

	migcontrollerv1 "github.com/mig-controller/mig-controller/gen/go/migcontroller/v1"
)

// execute runs statements on the database of the controller, as an administrator would.
func (c *controller) execute(t *testing.T, statements ...string) {
	t.Helper()
	path := filepath.Join(c.dataDir(t), "_state", "controller.db")
	db, err := sql.Open("sqlite", "file:"+path+"?_pragma=busy_timeout(5000)")
	require.NoError(t, err)
	for _, statement := range statements {
		done, err := db.ExecContext(t.Context(), statement)
		require.NoError(t, err, statement)
		n, err := done.RowsAffected()
		require.NoError(t, err)
		require.Positive(t, n, statement)
	}
	require.NoError(t, db.Close())
}

// firstCursor returns the first cursor of a watch that begins now, or at a cursor, or the
// error.
func (c *controller) firstCursor(t *testing.T, from string) (string, error) {
	t.Helper()
	stream, err := c.admin.WatchFleet(t.Context(), &migcontrollerv1.WatchFleetRequest{Cursor: from})
	require.NoError(t, err)
	defer stream.Close()
	if !stream.Receive() {
		return "", stream.Err()
	}
	return stream.Msg().GetCursor(), nil
}

// follow returns the error with which a watch ends.
func (c *controller) follow(t *testing.T, from string) error {
	t.Helper()
	stream, err := c.admin.WatchFleet(t.Context(), &migcontrollerv1.WatchFleetRequest{Cursor: from})
	require.NoError(t, err)
	defer stream.Close()
	await(t, func() bool { return !stream.Receive() }, "it does not end")
	return stream.Err()
}

// Rows are damaged while the controller runs, and then in every table while it does not.
// Requests that name a damaged record get DATA_LOSS; everything else is served, and every
// other command ends.
func testDamagedRows(t *testing.T) {
	c := startController(t)
	a := c.connectRegistered(t, "vm-1")
	before, err := c.firstCursor(t, "")
	require.NoError(t, err)
	c.send(t, "vm-2", "X")
	c.send(t, "vm-2", "behind", withTTL(2*time.Second))
	c.send(t, "vm-3", "other", withTTL(2*time.Second))
	c.execute(t, "UPDATE commands SET doc = x'7b7b7b', due_at = 1 WHERE id = 'X'")
	c.awaitEnd(t, "behind", expired)
	c.awaitEnd(t, "other", expired)
	c.requireDataLoss(t, "X")
	require.Len(t, c.commands(t, "vm-2"), 1)
	status, _ := c.ready(t)
	require.Equal(t, http.StatusOK, status)
	requireSameSession(t, c, a)

	epoch := c.vm(t, "vm-1").GetSessionEpoch()
	c.send(t, "vm-2", "next", withTTL(time.Minute))
	c.kill()
	c.execute(t, "UPDATE vms SET doc = x'7b' WHERE vm_id = 'vm-1'",
		"UPDATE commands SET state = x'00' WHERE id = 'other'",
		"UPDATE events SET doc = 'x' WHERE seq = (SELECT max(seq) FROM events)",
		"UPDATE heartbeats SET docs = x'00' WHERE seq = (SELECT max(seq) FROM heartbeats)",
		"UPDATE changes SET doc = NULL WHERE seq = (SELECT max(seq) FROM changes)")
	c.start(t)
	_, err = c.admin.GetVM(t.Context(), &migcontrollerv1.GetVMRequest{VmId: "vm-1"})
	require.Equal(t, connect.CodeDataLoss, connect.CodeOf(err))
	require.Empty(t, c.vms(t))
	c.requireDataLoss(t, "X")
	c.requireDataLoss(t, "other")
	require.Equal(t, connect.CodeOutOfRange, connect.CodeOf(c.follow(t, before)), "at the damaged change")
	_, err = c.firstCursor(t, before)
	require.Equal(t, connect.CodeOutOfRange, connect.CodeOf(err), "immediately the next time")
	now, err := c.firstCursor(t, "")
	require.NoError(t, err)
	c.connectRegistered(t, "vm-1")
	require.Greater(t, c.vm(t, "vm-1").GetSessionEpoch(), epoch)
	c.connect(t, "vm-2").expect(t, "next")
	_, err = c.firstCursor(t, now)
	require.NoError(t, err)
	_, err = c.admin.ListEvents(t.Context(), &migcontrollerv1.ListEventsRequest{})
	require.NoError(t, err)
	_, err = c.admin.ListHeartbeats(t.Context(), &migcontrollerv1.ListHeartbeatsRequest{VmId: "vm-1"})
	require.NoError(t, err)
	status, _ = c.ready(t)
	require.Equal(t, http.StatusOK, status)
	for _, table := range []string{"vms", "commands", "events", "heartbeats", "changes"} {
		require.Len(t, c.out.lines(ofMessage("damaged row set aside"), `"table":"`+table+`"`), 1, table)
	}
}

// requireDataLoss requires that a command can neither be read nor sent again.
func (c *controller) requireDataLoss(t *testing.T, id string) {
	t.Helper()
	_, err := c.admin.GetCommand(t.Context(), &migcontrollerv1.GetCommandRequest{CommandId: id})
	require.Equal(t, connect.CodeDataLoss, connect.CodeOf(err))
	_, err = c.trySend(t.Context(), "vm-2", id)
	require.Equal(t, connect.CodeDataLoss, connect.CodeOf(err))
}

// A list of large commands is read only as far as its page goes: it does not dominate the
// controller's memory.
func testLargeLists(t *testing.T) {
	const sent = 40
	c := startController(t)
	large := map[string]string{}
	for n := range 60 {
		large[fmt.Sprint("text-", n)] = strings.Repeat("x", 16<<10)
	}
	for n := range sent {
		c.send(t, fmt.Sprint("vm-", n), fmt.Sprint("c-", n), func(r *sendRequest) { r.Command.StringParams = large })
	}
	c.kill()
	c.start(t) // with an empty cache
	seen, token := map[string]bool{}, ""
	for page := 0; page == 0 || token != ""; page++ {
		answer, err := c.admin.ListCommands(t.Context(), &migcontrollerv1.ListCommandsRequest{PageSize: 1000, PageToken: token})
		require.NoError(t, err)
		require.NotEmpty(t, answer.GetCommands())
		require.Less(t, proto.Size(answer), 3<<20)
		for _, r := range answer.GetCommands() {
			seen[r.GetCommand().GetId()] = true
		}
		if token = answer.GetNextPageToken(); page == 0 {
			requirePeak(t, c.cmd.Process.Pid, 110<<20) // it was more when all rows were read
		}
	}
	require.Len(t, seen, sent)
}

// requirePeak requires that a process never used more memory than this. It works on Linux
// only.
func requirePeak(t *testing.T, pid, most int) {
	t.Helper()
	if runtime.GOOS != "linux" {
		return
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	require.NoError(t, err)
	peak := regexp.MustCompile(`VmHWM:\s+(\d+) kB`).FindSubmatch(status)
	require.NotNil(t, peak)
	kilobytes, err := strconv.Atoi(string(peak[1]))
	require.NoError(t, err)
	t.Logf("peak: %d kB", kilobytes)
	require.Less(t, kilobytes<<10, most)
}
