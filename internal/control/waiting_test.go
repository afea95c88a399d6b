package control_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/internal/fleet"
	"github.com/mig-controller/mig-controller/internal/store"
)

// Each open command in an answer has its waiting reason; each VM is looked up once per
// page.
func TestOpenCommandsAreExplained(t *testing.T) {
	t.Parallel()
	s := newWorld(t)
	s.know("vm-off")
	s.open(fleet.Hello{VM: "vm-off"})
	s.end("vm-off", start.Add(-time.Hour))
	c := newControl(t, s)
	for i := range 3 {
		for _, vm := range []string{"vm-off", "vm-new"} {
			sent, err := c.Send(anyone(t), fleet.CommandRequest{ID: fmt.Sprintf("%s-%d", vm, i), VM: vm, Type: "drain"}, 0)
			require.NoError(t, err)
			require.NotEmpty(t, sent.Waiting.Reason)
			require.Equal(t, start, sent.Waiting.Since)
		}
	}
	one, err := c.Command(anyone(t), "vm-off-1")
	require.NoError(t, err)
	require.Equal(t, "VM offline since 2030-01-02T02:04:05Z", one.Waiting.Reason)

	again := s.another() // with an empty cache
	looks := 0
	again.driver.before = func(method string) error {
		if method == "LoadVMs" {
			looks++
		}
		return nil
	}
	page, _, err := newControl(t, again).Commands(anyone(t), store.CommandQuery{}, 0, "")
	require.NoError(t, err)
	require.Len(t, page, 6)
	for _, cmd := range page {
		want := map[fleet.VMID]string{"vm-off": one.Waiting.Reason, "vm-new": "the VM has never been seen"}
		require.Equal(t, want[cmd.VM], cmd.Waiting.Reason)
	}
	require.Equal(t, 2, looks)

	ended, err := c.Cancel(anyone(t), "vm-off-1")
	require.NoError(t, err)
	require.Zero(t, ended.Waiting)
}

// A command that is delivered during the lookup does not wait for itself.
func TestDeliveredWhileExplained(t *testing.T) {
	t.Parallel()
	s := newWorld(t)
	agent := s.another()
	s.driver.committed = func() { agent.deliver("a") }
	sent, err := newControl(t, s).Send(anyone(t), fleet.CommandRequest{ID: "a", VM: "vm", Type: "drain"}, 0)
	require.NoError(t, err)
	require.Equal(t, fleet.Delivered, sent.State)
	require.Equal(t, "waits for its ack until 2030-01-02T03:04:35Z", sent.Waiting.Reason)
}

// A command is shown even if its waiting reason cannot be determined.
func TestUnexplainedCommandIsShown(t *testing.T) {
	t.Parallel()
	s := newWorld(t)
	c := newControl(t, s)
	_, err := c.Send(anyone(t), fleet.CommandRequest{ID: "a", VM: "vm", Type: "drain"}, 0)
	require.NoError(t, err)
	s.driver.before = func(method string) error {
		if method == "LoadVMs" {
			return errors.New("out of order")
		}
		return nil
	}
	cmd, err := c.Command(anyone(t), "a")
	require.NoError(t, err)
	require.Equal(t, fleet.Pending, cmd.State)
	require.Zero(t, cmd.Waiting)
	require.NotEmpty(t, cmd.WaitsAlone().Reason)
}
