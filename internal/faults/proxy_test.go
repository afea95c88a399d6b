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

// The proxies as configured in deploy/proxy. nginx does not share connections to the
// controller between agents; HAProxy does, within each of its threads.
var (
	shippedNginx   = proxyKind{"nginx", startNginx, func(n int) (int, int) { return n, n }}
	shippedHAProxy = proxyKind{"haproxy", startHAProxy, func(int) (int, int) { return 1, runtime.NumCPU() }}
	defaultNginx   = proxyKind{"nginx with its defaults", startDefaultNginx, nil}
)

// proxyScenarios are the statements of docs/proxies.md about proxies.
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

// throughProxies runs a scenario with each of the proxies in deploy/proxy.
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

// Idle agents, and agents that send heartbeats, stay on one session, even through nginx
// with its defaults. Commands reach all of them.
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

// Operators call with each protocol, over HTTP/1.1 and HTTP/2. An agent that uses TLS uses
// the same port.
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
	list := "https://" + s.secure + "/migcontroller.v1.AdminService/ListVMs"
	require.Equal(t, http.StatusUnauthorized, proxyPost(t, s.secureClient(t, false), list, `{}`).status)
	vms := proxyPost(t, s.secureClient(t, false), list, `{}`, "Authorization", "Bearer "+s.token)
	require.Equal(t, http.StatusOK, vms.status, vms.body)
	require.Equal(t, 1, vms.protocol)
	require.Contains(t, vms.body, `"vm-1"`)
}

// A watch gets each change when it is made, not when a buffer is full.
func testWatchThroughProxy(t *testing.T, s *proxySetup, _ proxyKind) {
	for name, options := range map[string][]connect.ClientOption{
		"connect": nil, "json": {connect.WithProtoJSON()}, "grpc": {connect.WithGRPC()}, "grpc-web": {connect.WithGRPCWeb()},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		watch, err := s.operator(t, options...).WatchFleet(ctx, &migcontrollerv1.WatchFleetRequest{})
		require.NoError(t, err, name)
		require.True(t, watch.Receive(), "%s: the first update: %v", name, watch.Err())
		startPersistentAgent(t, s.stream, "vm-"+name, 50*time.Millisecond).awaitRegistration(t)
		require.True(t, watch.Receive(), "%s: the new VM: %v", name, watch.Err())
		cancel()
		_ = watch.Close() // it is cancelled
	}
}

// Agents' HTTP routes work on the port for agents; operators' calls do not.
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

// The total size of a stream is unlimited, and its end reaches the controller.
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
	await(t, func() bool { return !s.controller.vm(t, "vm-1").GetConnected() }, "the session of an agent that disconnected continues")
}

// Agents reconnect after the proxy was killed, and get the commands that were waiting.
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

// While the controller is down, agents that retry immediately are slowed down by the proxy
// to far below thousands of attempts per second. They reconnect when the controller is
// back.
func testControllerKilledBehindProxy(t *testing.T, s *proxySetup, _ proxyKind) {
	agent := startPersistentAgent(t, s.stream, "vm-1", 0)
	agent.awaitRegistration(t)
	s.controller.kill()
	// Long enough for a proxy with health checks to detect that the controller is down.
	const outage = 15 * time.Second
	require.Never(t, func() bool { return len(agent.opened) > 10 }, outage, 50*time.Millisecond, "a hot loop")
	s.controller.start(t)
	s.controller.send(t, "vm-1", "after")
	agent.awaitCommand(t, "after")
}

// A command reaches each of many agents. The number of connections to the controller is as
// docs/proxies.md says.
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

// proxyReply is a response with its whole body.
type proxyReply struct {
	status, protocol int
	body             string
}

func proxyPost(t *testing.T, client *http.Client, url, body string, header ...string) proxyReply {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, strings.NewReader(body))
	require.NoError(t, err)
	request.Header.Set("Content-Type", "application/json")
	for i := 0; i < len(header); i += 2 {
		request.Header.Set(header[i], header[i+1])
	}
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
