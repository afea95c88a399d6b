//go:build faults

package faults

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/require"

	migcontrollerv1 "github.com/mig-controller/mig-controller/gen/go/migcontroller/v1"
)

// The proxies as deploy/proxy configures them. nginx shares no connection to the
// controller among agents; HAProxy does, in each of its threads.
var (
	shippedNginx   = proxyKind{"nginx", startNginx, func(n int) (int, int) { return n, n }}
	shippedHAProxy = proxyKind{"haproxy", startHAProxy, func(int) (int, int) { return 1, runtime.NumCPU() }}
	defaultNginx   = proxyKind{"nginx with its defaults", startDefaultNginx, nil}
)

// proxyScenarios are what docs/proxies.md says of proxies.
func proxyScenarios() scenarios {
	return scenarios{
		"proxy-idle-streams":      testIdleStreams,
		"proxy-calls":             throughProxies(testCallsThroughProxy),
		"proxy-watch":             throughProxies(testWatchThroughProxy),
		"proxy-agents-port":       throughProxies(testAgentsPort),
		"proxy-long-stream":       throughProxies(testLongStream),
		"proxy-killed":            throughProxies(testProxyKilled),
		"proxy-controller-killed": throughProxies(testControllerKilledBehindProxy),
		"proxy-many-agents":       throughProxies(testManyAgents),
	}
}

// throughProxies is a scenario with each of the proxies that are configured in
// deploy/proxy.
func throughProxies(scenario func(t *testing.T, s *proxySetup, kind proxyKind)) func(t *testing.T) {
	return func(t *testing.T) {
		for _, kind := range []proxyKind{shippedNginx, shippedHAProxy} {
			t.Run(kind.name, func(t *testing.T) {
				t.Parallel()
				scenario(t, newProxySetup(t, kind), kind)
			})
		}
	}
}

// idleTime is longer than any of nginx's timeouts, whose default is a minute.
const idleTime = 75 * time.Second

// Agents that say nothing stay on one session, and those that send heartbeats do,
// through nginx with its defaults as well. Commands reach all of them.
func testIdleStreams(t *testing.T) {
	type idleAgent struct {
		*persistentAgent
		setup *proxySetup
	}
	var agents []idleAgent
	for _, kind := range []proxyKind{shippedNginx, shippedHAProxy, defaultNginx} {
		s := newProxySetup(t, kind)
		silent := startPersistentAgent(t, s.stream, "silent", 50*time.Millisecond)
		silent.awaitRegistration(t)
		beating := startPersistentAgent(t, s.stream, "beating", 50*time.Millisecond)
		beating.awaitRegistration(t)
		beating.beatEvery(t, 15*time.Second)
		agents = append(agents, idleAgent{silent, s}, idleAgent{beating, s})
	}
	require.Never(t, func() bool {
		return slices.ContainsFunc(agents, func(a idleAgent) bool { return len(a.opened) > 1 })
	}, idleTime, 500*time.Millisecond, "a healthy stream is cut")
	for _, a := range agents {
		a.setup.controller.send(t, a.vm, "after-"+a.vm)
		a.awaitCommand(t, "after-"+a.vm)
		require.EqualValues(t, 1, a.setup.controller.vm(t, a.vm).GetSessionEpoch())
	}
}

// Operators call with each protocol, over HTTP/1.1 and HTTP/2. An agent that speaks TLS
// uses the same port.
func testCallsThroughProxy(t *testing.T, s *proxySetup, _ proxyKind) {
	agent := startPersistentAgentOn(t, s.secureClient(t, true), "https://"+s.secure, "vm-1", 50*time.Millisecond, 0)
	agent.awaitRegistration(t)
	for name, options := range map[string][]connect.ClientOption{
		"connect": nil, "json": {connect.WithProtoJSON()}, "grpc": {connect.WithGRPC()}, "grpc-web": {connect.WithGRPCWeb()},
	} {
		admin := s.operator(t, options...)
		answer, err := admin.GetVM(t.Context(), &migcontrollerv1.GetVMRequest{VmId: "vm-1"})
		require.NoError(t, err, name)
		require.True(t, answer.GetVm().GetConnected(), name)
		_, err = admin.GetVM(t.Context(), &migcontrollerv1.GetVMRequest{VmId: "nobody"})
		require.Equal(t, connect.CodeNotFound, connect.CodeOf(err), "%s: %v", name, err)
	}
	vms := proxyPost(t, s.secureClient(t, false), "https://"+s.secure+"/migcontroller.v1.AdminService/ListVMs", `{}`)
	require.Equal(t, http.StatusOK, vms.status, vms.body)
	require.Equal(t, 1, vms.protocol)
	require.Contains(t, vms.body, `"vm-1"`)
}

// Who watches gets each change when it is made, not when a buffer is full.
func testWatchThroughProxy(t *testing.T, s *proxySetup, _ proxyKind) {
	for name, options := range map[string][]connect.ClientOption{
		"connect": nil, "json": {connect.WithProtoJSON()}, "grpc": {connect.WithGRPC()}, "grpc-web": {connect.WithGRPCWeb()},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		watch, err := s.operator(t, options...).WatchFleet(ctx, &migcontrollerv1.WatchFleetRequest{})
		require.NoError(t, err, name)
		require.True(t, watch.Receive(), "%s: where it begins: %v", name, watch.Err())
		startPersistentAgent(t, s.stream, "vm-"+name, 50*time.Millisecond).awaitRegistration(t)
		require.True(t, watch.Receive(), "%s: the new VM: %v", name, watch.Err())
		cancel()
		_ = watch.Close() // it is cancelled
	}
}

// Agents' HTTP routes work on the port for agents, and operators' calls do not.
func testAgentsPort(t *testing.T, s *proxySetup, _ proxyKind) {
	client := &http.Client{Transport: &http.Transport{}, Timeout: patience}
	defer client.CloseIdleConnections()
	base := "http://" + s.routes
	for _, call := range []struct{ path, body, answer string }{
		{"/api/v1/vms/old-1/events", `{"type": "vm_started", "vm_id": "old-1"}`, `"acknowledged":true`},
		{"/api/v1/vms/old-1/heartbeat", `{"type": "job_heartbeat", "miglet_state": "idle"}`, `"received"`},
		{"/migcontroller.v1.AgentService/PollCommands", `{"vm_id": "old-1"}`, `{`},
	} {
		got := proxyPost(t, client, base+call.path, call.body)
		require.Equal(t, http.StatusOK, got.status, "%s: %s", call.path, got.body)
		require.Contains(t, got.body, call.answer, call.path)
	}
	for path, status := range map[string]int{
		"/health": http.StatusOK, "/api/v1/vms/old-1/commands": http.StatusOK,
		"/": http.StatusNotFound, "/openapi.json": http.StatusNotFound,
	} {
		got := proxyGet(t, client, base+path)
		require.Equal(t, status, got.status, "%s: %s", path, got.body)
	}
	const list = "/migcontroller.v1.AdminService/ListVMs"
	require.Equal(t, http.StatusNotFound, proxyPost(t, client, base+list, `{}`).status)
	over2 := &http.Client{Transport: newTransport(t)}
	require.Equal(t, http.StatusNotFound, proxyPost(t, over2, "http://"+s.stream+list, `{}`).status)
}

// What one stream carries together has no limit, and its end reaches the controller.
func testLongStream(t *testing.T, s *proxySetup, _ proxyKind) {
	agent := startPersistentAgent(t, s.stream, "vm-1", time.Hour)
	agent.awaitRegistration(t)
	const events, size = 40, 60_000 // over 2 MB; nginx's limit is 1 MiB by default
	for i := range events {
		agent.report(t, fmt.Sprintf("event_%d", i), strings.Repeat("x", size))
	}
	await(t, func() bool {
		answer, err := s.controller.admin.ListEvents(t.Context(), &migcontrollerv1.ListEventsRequest{VmId: "vm-1", PageSize: 1})
		require.NoError(t, err)
		return len(answer.GetEvents()) == 1 && answer.GetEvents()[0].GetType() == fmt.Sprintf("event_%d", events-1)
	}, "the last event does not arrive")
	require.EqualValues(t, 1, s.controller.vm(t, "vm-1").GetSessionEpoch())

	agent.hangUp()
	await(t, func() bool { return !s.controller.vm(t, "vm-1").GetConnected() }, "the session of an agent that hung up goes on")
}

// Agents come back after the death of the proxy, and get what waited for them.
func testProxyKilled(t *testing.T, s *proxySetup, kind proxyKind) {
	agents := make([]*persistentAgent, 5)
	for i := range agents {
		agents[i] = startPersistentAgent(t, s.stream, fmt.Sprintf("vm-%d", i), 50*time.Millisecond)
		agents[i].awaitRegistration(t)
	}
	s.proxy.kill()
	for _, a := range agents {
		await(t, func() bool { return !s.controller.vm(t, a.vm).GetConnected() }, "%s is still connected", a.vm)
		s.controller.send(t, a.vm, "pending-"+a.vm)
	}
	s.proxy = kind.start(t, s)
	for _, a := range agents {
		a.awaitCommand(t, "pending-"+a.vm)
	}
}

// While the controller is down, agents that try again at once do not get to do so
// thousands of times a second. They come back when the controller does.
func testControllerKilledBehindProxy(t *testing.T, s *proxySetup, _ proxyKind) {
	agent := startPersistentAgent(t, s.stream, "vm-1", 0)
	agent.awaitRegistration(t)
	s.controller.kill()
	// Long enough for a proxy that checks the controller to notice that it is down.
	const outage = 15 * time.Second
	require.Never(t, func() bool { return len(agent.opened) > 10 }, outage, 50*time.Millisecond, "a hot loop")
	s.controller.start(t)
	s.controller.send(t, "vm-1", "after")
	agent.awaitCommand(t, "after")
}

// A command reaches each of many agents. How many connections to the controller they
// share is as docs/proxies.md says.
func testManyAgents(t *testing.T, s *proxySetup, kind proxyKind) {
	const n = 50
	agents := make([]*persistentAgent, n)
	for i := range agents {
		agents[i] = startPersistentAgent(t, s.stream, fmt.Sprintf("vm-%d", i), 50*time.Millisecond)
		agents[i].awaitRegistration(t)
	}
	connections := connectionsTo(t, s.grpc)
	least, most := kind.connections(n)
	require.GreaterOrEqual(t, connections, least)
	require.LessOrEqual(t, connections, most)
	for _, a := range agents {
		s.controller.send(t, a.vm, "for-"+a.vm)
	}
	for _, a := range agents {
		a.awaitCommand(t, "for-"+a.vm)
		require.EqualValues(t, 1, s.controller.vm(t, a.vm).GetSessionEpoch())
	}
}

// proxyReply is what was answered, read to its end.
type proxyReply struct {
	status, protocol int
	body             string
}

func proxyPost(t *testing.T, client *http.Client, url, body string) proxyReply {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, strings.NewReader(body))
	require.NoError(t, err)
	request.Header.Set("Content-Type", "application/json")
	return proxyDo(t, client, request)
}

func proxyGet(t *testing.T, client *http.Client, url string) proxyReply {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, http.NoBody)
	require.NoError(t, err)
	return proxyDo(t, client, request)
}

func proxyDo(t *testing.T, client *http.Client, request *http.Request) proxyReply {
	t.Helper()
	response, err := client.Do(request)
	require.NoError(t, err)
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	return proxyReply{status: response.StatusCode, protocol: response.ProtoMajor, body: string(body)}
}
