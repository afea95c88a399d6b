package crash

import (
	"fmt"
	"net/http"
	"testing"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/require"

	migcontrollerv1 "github.com/mig-controller/mig-controller/gen/go/migcontroller/v1"
	"github.com/mig-controller/mig-controller/gen/go/miglet/commands"
)

// diskTrouble is a controller whose disk cannot be written for a while. Promises 1 and 5
// hold anyway: what cannot be stored is rejected as UNAVAILABLE, and then does not exist;
// messages on streams wait; everything that was accepted survives. The process keeps
// running, reports why it is not ready, and needs no restart when there is space again.
type diskTrouble struct {
	c          *controller
	dir        string // the data directory as the test sees it
	fill, free func()

	accepted, refused []string // ids of commands
}

func (d *diskTrouble) run(t *testing.T) {
	t.Helper()
	c := d.c
	a := connectAgent(t, c, "vm-1")
	a.register(t)
	awaitIdle(t, c, 1)
	for i := range 20 {
		d.send(t, fmt.Sprintf("before-%d", i))
	}
	c.mustSend(t, "vm-1", "cmd-out")
	require.Equal(t, "cmd-out", a.next(t).GetId())

	d.fill()
	d.refuse(t, "during")
	d.requireReported(t)
	a.beat(t, "job_running")
	d.beatUntilRefused(t)
	a.report(t, "job_started", "held back")
	a.ack(t, "cmd-out")
	turnedAway := turnAway(t, c)
	d.refuse(t, "meanwhile")
	require.Equal(t, delivered, c.command(t, "cmd-out").GetState(), "an ack that is not durable does not count")

	d.free()
	eventually(t, func() bool {
		status, _ := c.get(t, "/ready")
		return status == http.StatusOK
	}, "not ready again")
	d.send(t, "after")
	c.waitState(t, "cmd-out", succeeded)
	eventually(t, func() bool {
		vms := c.vms(t)
		return vms["vm-1"].GetStatus() == "job_running" && vms["vm-3"].GetStatus() == "draining"
	}, "a heartbeat is lost")
	require.Contains(t, marks(c.events(t, "vm-1")), "held back")
	require.NotContains(t, marks(c.events(t, "vm-1")), "refused")
	d.requireKept(t)
	require.Equal(t, connect.CodeUnavailable, connect.CodeOf(await(t, turnedAway, "the end of a stream that is refused")))
	require.True(t, c.vm(t, "vm-1").GetConnected(), "the session outlasts it")
}

// send sends a command to an offline VM, records the outcome, and reports whether it was
// accepted.
func (d *diskTrouble) send(t *testing.T, id string) bool {
	t.Helper()
	_, err := d.c.send(t.Context(), id, &migcontrollerv1.SendCommandRequest{VmId: "vm-off"})
	if err == nil {
		d.accepted = append(d.accepted, id)
		return true
	}
	require.Equal(t, connect.CodeUnavailable, connect.CodeOf(err), err)
	d.refused = append(d.refused, id)
	return false
}

// refuse sends commands until several in a row are rejected: some may still fit.
func (d *diskTrouble) refuse(t *testing.T, name string) {
	t.Helper()
	inARow, n := 0, 0
	eventually(t, func() bool {
		n++
		inARow++
		if d.send(t, fmt.Sprintf("%s-%d", name, n)) {
			inARow = 0
		}
		return inARow == 5
	}, "commands are still accepted")
}

// requireReported fails unless the controller reports that it is alive, not ready and why;
// serves reads; and does not answer reports with 200.
func (d *diskTrouble) requireReported(t *testing.T) {
	t.Helper()
	status, answer := d.c.get(t, "/ready")
	require.Equal(t, http.StatusServiceUnavailable, status, answer)
	require.Regexp(t, `"reason":".+"`, answer)
	status, _ = d.c.get(t, "/health")
	require.Equal(t, http.StatusOK, status)
	d.requireKept(t)
	status, answer, err := d.c.post(t.Context(), "/api/v1/vms/vm-1/events",
		`{"type":"job_started","vm_id":"vm-1","data":{"mark":"refused"}}`)
	require.NoError(t, err)
	require.Equal(t, http.StatusServiceUnavailable, status, answer)
}

// beatUntilRefused sends heartbeats over HTTP. The first are answered, since they are
// stored a little later; once that fails no more are.
func (d *diskTrouble) beatUntilRefused(t *testing.T) {
	t.Helper()
	answered := false
	eventually(t, func() bool {
		status, answer, err := d.c.post(t.Context(), "/api/v1/vms/vm-3/heartbeat",
			`{"type":"job_heartbeat","vm_id":"vm-3","miglet_state":"draining"}`)
		require.NoError(t, err)
		answered = answered || status == http.StatusOK
		require.Contains(t, []int{http.StatusOK, http.StatusServiceUnavailable}, status, answer)
		return status == http.StatusServiceUnavailable
	}, "heartbeats are still answered")
	require.True(t, answered)
}

// requireKept fails unless the accepted commands exist, in order, and the rejected ones do
// not.
func (d *diskTrouble) requireKept(t *testing.T) {
	t.Helper()
	require.Equal(t, d.accepted, ids(d.c.commands(t, &migcontrollerv1.ListCommandsRequest{VmId: "vm-off"})))
	for _, id := range d.refused {
		_, err := d.c.admin.GetCommand(t.Context(), &migcontrollerv1.GetCommandRequest{CommandId: id})
		require.Equal(t, connect.CodeNotFound, connect.CodeOf(err), "command %s was refused", id)
	}
}

// turnAway opens a stream for a VM that the controller cannot store, and returns how it
// ends. A ConnectAck, which could make the agent give up permanently, must not be sent
// first.
func turnAway(t *testing.T, c *controller) <-chan error {
	t.Helper()
	a := openStream(t, c, "vm-2")
	answer, end := make(chan *commands.ControllerMessage, 1), make(chan error, 1)
	go a.read(answer)
	go func() {
		if first := <-answer; first != nil {
			end <- fmt.Errorf("the agent received %v", first)
			return
		}
		<-a.ended
		end <- a.end
	}()
	return end
}
