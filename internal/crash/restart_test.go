package crash

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/durationpb"

	migcontrollerv1 "github.com/mig-controller/mig-controller/gen/go/migcontroller/v1"
	"github.com/mig-controller/mig-controller/gen/go/miglet/commands"
)

// Promises 1, 5 and 6. After a crash the admin API returns the same as before, byte for
// byte: VMs, commands in all states, events, filters, the order and the tokens of pages.
// The only difference is that VMs are no longer connected. The registration token, which an
// agent got, is nowhere in the data directory.
func TestRestartFindsEverything(t *testing.T) {
	t.Parallel()
	const token = "AABBCCDDEEFFGGHHIIJJKK"
	dir := t.TempDir()
	launchOn := func() *controller {
		cmd := command(t, dir, "--runner-url=https://github.com/example/repository")
		cmd.Env = append(cmd.Env, "CONTROLLER_REGISTRATION_TOKEN="+token)
		return launch(t, dir, cmd)
	}
	c := launchOn()
	agents := liveALittle(t, c, token)

	before := everything(t, c)
	require.Greater(t, len(before), 70)
	require.Contains(t, before["/vms/vm-out"], `"connected":true`)
	c.kill()
	requireNowhere(t, dir, token)
	for _, a := range agents {
		a.hangUp()
	}
	c = launchOn()
	requireSame(t, before, everything(t, c), withoutSessions)

	before = everything(t, c)
	require.NotContains(t, before["/vms/vm-out"], "connected\":true")
	c.kill()
	c = launchOn()
	requireSame(t, before, everything(t, c), func(t *testing.T, s string) string { t.Helper(); return s })
	requireNowhere(t, dir, token)
}

// liveALittle creates VMs and commands in every state, and events by every route. It
// returns the agents that are still connected.
func liveALittle(t *testing.T, c *controller, token string) []*agent {
	t.Helper()
	vms := map[string]*agent{}
	for _, id := range []string{"vm-done", "vm-failed", "vm-late", "vm-out"} {
		a := connectAgent(t, c, id)
		register := a.next(t)
		require.Equal(t, token, register.GetStringParams()["registration_token"])
		a.ack(t, register.GetId())
		a.report(t, "runner_registered", id)
		a.beat(t, "idle")
		vms[id] = a
	}
	awaitIdle(t, c, len(vms))
	c.mustSend(t, "vm-done", "cmd-succeeded")
	vms["vm-done"].ack(t, vms["vm-done"].next(t).GetId())
	c.mustSend(t, "vm-failed", "cmd-failed")
	vms["vm-failed"].send(t, ackOf(vms["vm-failed"].next(t).GetId(), false))
	sendWith(t, c, "cmd-timed-out", &migcontrollerv1.SendCommandRequest{VmId: "vm-late", AckTimeout: durationpb.New(time.Millisecond)})
	require.Equal(t, "cmd-timed-out", vms["vm-late"].next(t).GetId())
	vms["vm-late"].beat(t, "idle") // it is alive
	sendWith(t, c, "cmd-expired", &migcontrollerv1.SendCommandRequest{VmId: "vm-off", Ttl: durationpb.New(time.Millisecond)})
	c.mustSend(t, "vm-out", "cmd-delivered")
	require.Equal(t, "cmd-delivered", vms["vm-out"].next(t).GetId())
	c.mustSend(t, "vm-off", "cmd-cancelled")
	_, err := c.admin.CancelCommand(t.Context(), &migcontrollerv1.CancelCommandRequest{CommandId: "cmd-cancelled"})
	require.NoError(t, err)
	for i := range 25 {
		c.mustSend(t, fmt.Sprintf("vm-off-%d", i%3), fmt.Sprintf("cmd-pending-%d", i))
		report(t, c, fmt.Sprintf("vm-http-%d", i%7), i)
		if i < 7 {
			beat(t, c, fmt.Sprintf("vm-http-%d", i))
		}
	}
	for state, id := range map[migcontrollerv1.CommandState]string{
		migcontrollerv1.CommandState_COMMAND_STATE_SUCCEEDED: "cmd-succeeded",
		migcontrollerv1.CommandState_COMMAND_STATE_FAILED:    "cmd-failed",
		migcontrollerv1.CommandState_COMMAND_STATE_TIMED_OUT: "cmd-timed-out",
		migcontrollerv1.CommandState_COMMAND_STATE_EXPIRED:   "cmd-expired",
		migcontrollerv1.CommandState_COMMAND_STATE_DELIVERED: "cmd-delivered",
		migcontrollerv1.CommandState_COMMAND_STATE_CANCELLED: "cmd-cancelled",
		migcontrollerv1.CommandState_COMMAND_STATE_PENDING:   "cmd-pending-0",
	} {
		c.waitState(t, id, state)
	}
	vms["vm-done"].hangUp()
	eventually(t, func() bool { return !c.vm(t, "vm-done").GetConnected() }, "vm-done is still connected")
	return []*agent{vms["vm-failed"], vms["vm-late"], vms["vm-out"]}
}

func sendWith(t *testing.T, c *controller, id string, request *migcontrollerv1.SendCommandRequest) {
	t.Helper()
	request.Command = &commands.Command{
		Type: "update_config", CreatedAt: 1_700_000_000,
		StringParams: map[string]string{"name": "ü \" \\"}, BoolParams: map[string]bool{"yes": true, "no": false},
		IntParams: map[string]int64{"large": 1<<62 + 1}, StringArrayParams: []string{"", "b"},
	}
	_, err := c.send(t.Context(), id, request)
	require.NoError(t, err)
}

// report reports an event over HTTP.
func report(t *testing.T, c *controller, vm string, n int) {
	t.Helper()
	body := fmt.Sprintf(`{"type":"job_completed","vm_id":%q,"job_id":"%d","success":true,"metadata":{"a":[1.5,null]}}`, vm, n)
	status, answer, err := c.post(t.Context(), "/api/v1/vms/"+vm+"/events", body)
	require.NoError(t, err)
	require.Equal(t, http.StatusOK, status, answer)
}

// beat sends the only heartbeat of a VM over HTTP, and waits until it is stored: before
// that a crash may lose it.
func beat(t *testing.T, c *controller, vm string) {
	t.Helper()
	body := fmt.Sprintf(`{"type":"job_heartbeat","vm_id":%q,"miglet_state":"job_running","current_job":{"job_id":"1"}}`, vm)
	status, answer, err := c.post(t.Context(), "/api/v1/vms/"+vm+"/heartbeat", body)
	require.NoError(t, err)
	require.Equal(t, http.StatusOK, status, answer)
	eventually(t, func() bool { return c.vm(t, vm).GetStatus() != "" }, "the heartbeat of %s is not kept", vm)
}

// everything is all that the admin API returns, by request: each VM, each command, and all
// lists, page by page.
func everything(t *testing.T, c *controller) map[string]string {
	t.Helper()
	all := map[string]string{}
	for id := range c.vms(t) {
		all["/vms/"+id] = ask(t, c, "GetVM", `{"vmId":"`+id+`"}`)
	}
	for _, id := range ids(c.commands(t, &migcontrollerv1.ListCommandsRequest{})) {
		all["/commands/"+id] = ask(t, c, "GetCommand", `{"commandId":"`+id+`"}`)
	}
	for _, list := range []string{
		"ListVMs {}", `ListVMs {"poolId":"pool-1"}`, `ListVMs {"status":"job_running"}`,
		"ListCommands {}", `ListCommands {"vmId":"vm-off-1"}`, `ListCommands {"type":"register_runner"}`,
		`ListCommands {"states":["COMMAND_STATE_PENDING","COMMAND_STATE_EXPIRED"]}`,
		"ListEvents {}", `ListEvents {"vmId":"vm-http-1"}`, `ListEvents {"type":"runner_registered"}`,
	} {
		var method, filter string
		_, err := fmt.Sscan(list, &method, &filter)
		require.NoError(t, err)
		page := map[string]any{"pageSize": 4}
		require.NoError(t, json.Unmarshal([]byte(filter), &page))
		for n := 1; ; n++ {
			body, err := json.Marshal(page)
			require.NoError(t, err)
			answer := ask(t, c, method, string(body))
			all[fmt.Sprintf("%s page %d", list, n)] = answer
			var next struct {
				NextPageToken string `json:"nextPageToken"`
			}
			require.NoError(t, json.Unmarshal([]byte(answer), &next))
			if next.NextPageToken == "" {
				break
			}
			page["pageToken"] = next.NextPageToken
		}
	}
	return all
}

// ask calls the admin API as curl does.
func ask(t *testing.T, c *controller, method, body string) string {
	t.Helper()
	status, answer, err := c.post(t.Context(), "/migcontroller.v1.AdminService/"+method, body)
	require.NoError(t, err)
	require.Equal(t, http.StatusOK, status, "%s %s: %s", method, body, answer)
	return answer
}

func requireSame(t *testing.T, before, after map[string]string, mask func(*testing.T, string) string) {
	t.Helper()
	require.Len(t, after, len(before))
	for asked, answer := range before {
		require.Equal(t, mask(t, answer), mask(t, after[asked]), asked)
	}
}

// withoutSessions removes from an answer what the end of a session changes.
func withoutSessions(t *testing.T, answer string) string {
	t.Helper()
	var tree any
	decoder := json.NewDecoder(bytes.NewBufferString(answer))
	decoder.UseNumber()
	require.NoError(t, decoder.Decode(&tree))
	strip(tree)
	kept, err := json.Marshal(tree)
	require.NoError(t, err)
	return string(kept)
}

func strip(tree any) {
	switch node := tree.(type) {
	case map[string]any:
		delete(node, "connected")
		delete(node, "disconnectedAt")
		if _, open := node["waiting"]; open {
			delete(node, "waiting")
			delete(node, "reason")
		}
		for _, child := range node {
			strip(child)
		}
	case []any:
		for _, child := range node {
			strip(child)
		}
	}
}

// requireNowhere fails if any file below dir contains the text.
func requireNowhere(t *testing.T, dir, text string) {
	t.Helper()
	files := 0
	require.NoError(t, filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		content, err := os.ReadFile(path)
		require.NotContains(t, string(content), text, path)
		files++
		return err
	}))
	require.Greater(t, files, 20)
}
