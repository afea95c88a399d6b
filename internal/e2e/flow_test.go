package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protojson"

	migcontrollerv1 "github.com/mig-controller/mig-controller/gen/go/migcontroller/v1"
	"github.com/mig-controller/mig-controller/gen/go/miglet/commands"
	"github.com/mig-controller/mig-controller/internal/config"
)

// secretToken is a registration token that only agents may get.
const secretToken = "AFRRNIGNOTHINGTOSEEHERE7"

func withRunners(o *config.Options) {
	o.RunnerURL, o.RunnerGroup, o.RunnerLabels = "https://github.example/org/repo", "builders", []string{"mig", "x64"}
	o.RegistrationToken = secretToken
}

// TestFlowOnBothAddresses defends the contract's flow, and that both the stream and the
// admin API are served on both ports.
func TestFlowOnBothAddresses(t *testing.T) {
	t.Parallel()
	c := start(t, withRunners)
	for name, addr := range c.addresses() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			vm := newVM()
			a := connectOver(t, dial(t, addr), vm)
			v := c.vm(t, vm)
			require.True(t, v.GetConnected())
			require.Equal(t, "pool-a org-a "+agentVersion, v.GetPoolId()+" "+v.GetOrgId()+" "+v.GetAgentVersion())
			require.EqualValues(t, 1, v.GetSessionEpoch())

			cmd := a.expectCommand("register_runner")
			require.Equal(t, map[string]string{
				"registration_token": secretToken, "runner_url": "https://github.example/org/repo",
				"runner_group": "builders",
			}, cmd.GetStringParams())
			require.Equal(t, []string{"mig", "x64"}, cmd.GetStringArrayParams())
			require.InDelta(t, time.Now().Unix(), cmd.GetCreatedAt(), 60)
			require.Equal(t, requested, c.vm(t, vm).GetRegistration().GetState())

			a.acked(cmd.GetId())
			c.awaitCommand(t, cmd.GetId(), succeeded)
			require.Equal(t, requested, c.vm(t, vm).GetRegistration().GetState(), "an ack is not a proof")
			a.happened("runner_registered")
			c.awaitVM(t, vm, "registered", isRegistered)
			a.beat("idle", withRunner(true))
			c.awaitVM(t, vm, "idle", func(v *migcontrollerv1.VM) bool { return v.GetStatus() == "idle" })

			event := c.awaitEvent(t, vm, "runner_registered")
			require.Equal(t, migcontrollerv1.ReportSource_REPORT_SOURCE_STREAM, event.GetSource())
			kept := new(commands.EventNotification)
			require.NoError(t, protojson.Unmarshal(c.awaitFile(t, vm, "grpc-event-runner_registered-"), kept))
			require.Equal(t, vm, kept.GetVmId())
			var beat map[string]any
			require.NoError(t, json.Unmarshal(c.awaitFile(t, vm, "grpc-heartbeat-"), &beat))
			require.Equal(t, "idle", beat["miglet_state"], "names are in snake_case")
			c.requireLives(t, a)
		})
	}
}

// TestPeopleFindTheAdminAPIOnBothAddresses defends that curl with JSON works on either
// port, and that gRPC returns the same.
func TestPeopleFindTheAdminAPIOnBothAddresses(t *testing.T) {
	t.Parallel()
	vm := newVM()
	shared.connectRegistered(t, vm)
	for _, addr := range []string{shared.httpAddr, shared.grpcAddr} {
		status, answer := shared.call(t, http.MethodPost, addr,
			"/migcontroller.v1.AdminService/GetVM", fmt.Sprintf(`{"vm_id":%q}`, vm))
		require.Equal(t, http.StatusOK, status, string(answer))
		res := new(migcontrollerv1.GetVMResponse)
		require.NoError(t, protojson.Unmarshal(answer, res))
		require.Equal(t, vm, res.GetVm().GetVmId())
		require.True(t, res.GetVm().GetConnected())
	}
	res, err := shared.grpcAdmin.GetVM(t.Context(), &migcontrollerv1.GetVMRequest{VmId: vm})
	require.NoError(t, err)
	require.Equal(t, vm, res.GetVm().GetVmId())
}

// TestTokenReachesAgentsOnly defends that a registration token is neither stored nor logged
// nor returned to operators, by whichever route it was sent.
func TestTokenReachesAgentsOnly(t *testing.T) {
	t.Parallel()
	c := start(t, withRunners)
	streaming, polling := newVM(), newVM()
	watch := c.watch(t, "", "")
	watch.next()
	a := c.connect(t, streaming)
	cmd := a.register()
	require.Equal(t, secretToken, cmd.GetStringParams()["registration_token"])
	c.awaitVM(t, streaming, "registered", isRegistered)
	again := c.send(t, streaming, "register_runner")
	require.Equal(t, secretToken, a.expectCommand("register_runner").GetStringParams()["registration_token"])
	a.acked(again.GetCommand().GetId())
	c.awaitCommand(t, again.GetCommand().GetId(), succeeded)
	_, polled := c.call(t, http.MethodGet, c.httpAddr, "/api/v1/vms/"+polling+"/commands", "")
	require.Contains(t, string(polled), secretToken)
	_, minted := c.call(t, http.MethodPost, c.httpAddr, "/api/v1/vms/"+polling+"/registration-token", "{}")
	require.Contains(t, string(minted), secretToken)
	a.beat("idle", withRunner(true))
	c.awaitFile(t, streaming, "grpc-heartbeat-")
	c.awaitFile(t, streaming, "grpc-event-runner_registered-")

	for method, body := range map[string]string{
		"GetVM": fmt.Sprintf(`{"vm_id":%q}`, streaming), "GetCommand": fmt.Sprintf(`{"command_id":%q}`, cmd.GetId()),
		"ListVMs": "{}", "ListCommands": "{}", "ListEvents": "{}",
		"SendCommand": fmt.Sprintf(`{"vm_id":%q,"command":{"id":%q,"type":"register_runner"}}`,
			streaming, again.GetCommand().GetId()),
	} {
		status, answer := c.call(t, http.MethodPost, c.httpAddr, "/migcontroller.v1.AdminService/"+method, body)
		require.Equal(t, http.StatusOK, status, "%s: %s", method, answer)
		require.Contains(t, string(answer), streaming, method)
		require.NotContains(t, string(answer), secretToken, method)
	}
	for last := ""; last != again.GetCommand().GetId()+succeeded.String(); {
		m := watch.next()
		require.NotContains(t, m.String(), secretToken)
		last = m.GetCommand().GetCommand().GetId() + m.GetCommand().GetState().String()
	}
	require.NotEmpty(t, c.filesWith(t, cmd.GetId()), "the search works")
	require.Empty(t, c.filesWith(t, secretToken))
	require.NoError(t, c.end())
	require.NotEmpty(t, c.filesWith(t, cmd.GetId()))
	require.Empty(t, c.filesWith(t, secretToken))
	require.NotEmpty(t, c.log.lines(cmd.GetId()))
	require.Empty(t, c.log.lines(secretToken))
}

// TestQueueOfAnOfflineVMArrivesInOrder defends the order of acceptance, and that at most
// one command is in flight at any time.
func TestQueueOfAnOfflineVMArrivesInOrder(t *testing.T) {
	t.Parallel()
	vm := newVM()
	var queue []string
	for range 30 {
		sent := shared.send(t, vm, "update_config")
		require.Equal(t, pending, sent.GetState())
		queue = append(queue, sent.GetCommand().GetId())
	}
	_, err := shared.admin.GetVM(t.Context(), &migcontrollerv1.GetVMRequest{VmId: vm})
	requireCode(t, err, codeNotFound, vm)

	a := shared.connect(t, vm)
	for i, id := range queue {
		a.expect(id)
		for j, r := range shared.commandsOf(t, vm, "update_config") {
			require.Equal(t, j == i, r.GetState() == delivered, "command %d while %d is in flight", j, i)
		}
		a.acked(id)
	}
	a.register()
	shared.awaitVM(t, vm, "registered", isRegistered)
	records := shared.commandsOf(t, vm, "")
	require.Len(t, records, 31)
	for i, r := range records {
		require.Equal(t, succeeded, r.GetState())
		require.EqualValues(t, 1, r.GetAttempts())
		if i > 0 {
			require.False(t, r.GetDeliveredAt().AsTime().Before(records[i-1].GetFinishedAt().AsTime()),
				"command %d was sent before %d had ended", i, i-1)
		}
	}
}
