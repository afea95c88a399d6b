package faults

import (
	"bytes"
	"fmt"
	"io/fs"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/durationpb"

	migcontrollerv1 "github.com/mig-controller/mig-controller/gen/go/migcontroller/v1"
	"github.com/mig-controller/mig-controller/gen/go/miglet/commands"
	"github.com/mig-controller/mig-controller/internal/testkit"
)

// planted is a controller with everything that it writes.
type planted struct {
	*controller
	plants

	answers, spans *tape
	logs           []*output
	collector      string
	token          string
	operator       string // the secret of the token for all calls
}

// startPlanted starts a controller that logs everything and exports traces.
func startPlanted(t *testing.T) *planted {
	t.Helper()
	p := &planted{
		plants: plants{}, answers: &tape{paths: map[string]bool{}}, spans: &tape{}, token: filepath.Join(t.TempDir(), "token"),
	}
	require.NoError(t, os.WriteFile(p.token, []byte(p.text("registration token")), 0o600))
	issuer, option := startIssuer(t)
	p.controller = newController(t, "--log-level=debug", "--registration-token-file="+p.token, "--runner-url=https://github.com/example/app", option)
	collector := httptest.NewServer(p.spans)
	t.Cleanup(collector.Close)
	p.collector = collector.URL
	p.start(t)
	p.authorize(t, issuer)
	return p
}

func (p *planted) start(t *testing.T) {
	t.Helper()
	command := exec.CommandContext(t.Context(), program(t, "controller"), p.options...)
	command.Env = append(os.Environ(), "OTEL_EXPORTER_OTLP_ENDPOINT="+p.collector, "OTEL_BSP_SCHEDULE_DELAY=100")
	p.child = startChild(t, command)
	p.logs = append(p.logs, &p.out)
	p.awaitStart(t)
}

// order sends a command with secrets, and returns it as its agent must get it.
func (p *planted) order(t *testing.T, vm, id string, change ...func(*sendRequest)) *commands.Command {
	t.Helper()
	sent := p.params("command " + id)
	sent.Id = id
	request := &sendRequest{VmId: vm, Command: sent}
	for _, f := range change {
		f(request)
	}
	answer, err := p.admin.SendCommand(t.Context(), request)
	require.NoError(t, err)
	p.requireHidden(t, answer.GetCommand())
	return sent
}

// repeat sends the command again, and then with another secret.
func (p *planted) repeat(t *testing.T, vm string, sent *commands.Command) {
	t.Helper()
	again, err := p.admin.SendCommand(t.Context(), &sendRequest{VmId: vm, Command: sent})
	require.NoError(t, err)
	p.requireHidden(t, again.GetCommand())
	params := maps.Clone(sent.GetStringParams())
	params["API_KEY"] = p.text("another secret for " + sent.GetId())
	_, err = p.admin.SendCommand(t.Context(), &sendRequest{VmId: vm, Command: &commands.Command{
		Id: sent.GetId(), Type: sent.GetType(), StringParams: params, IntParams: sent.GetIntParams(),
		BoolParams: sent.GetBoolParams(), StringArrayParams: sent.GetStringArrayParams(),
	}})
	require.Equal(t, connect.CodeAlreadyExists, connect.CodeOf(err), err)
	require.Empty(t, p.found([]byte(err.Error())))
}

func (p *planted) requireHidden(t *testing.T, r *record) {
	t.Helper()
	require.Equal(t, map[string]string{
		"config_key": "github.token", "config_value": "(hidden)", "api_token": "(hidden)", "clientSecret": "(hidden)", "db-password": "(hidden)",
		"API_KEY": "(hidden)", "encodedJitConfig": "(hidden)", "pin_secret": "(hidden)", "is_password": "(hidden)", "note": visible,
		"runner_url": "https://x",
	}, r.GetCommand().GetStringParams())
	require.Equal(t, map[string]int64{"n": 1}, r.GetCommand().GetIntParams())
	require.Empty(t, r.GetCommand().GetBoolParams())
}

// requireReceived requires that the agent gets the command as it was sent.
func requireReceived(t *testing.T, a *agent, sent *commands.Command) {
	t.Helper()
	got := a.next(t)
	require.Equal(t, sent.GetId(), got.GetId())
	require.Equal(t, sent.GetStringParams(), got.GetStringParams())
	require.Equal(t, sent.GetIntParams(), got.GetIntParams())
	require.Equal(t, sent.GetBoolParams(), got.GetBoolParams())
	require.Equal(t, sent.GetStringArrayParams(), got.GetStringArrayParams())
}

// report makes an agent report secrets in every way that has names.
func (p *planted) reportSecrets(t *testing.T, a *agent, acked string) {
	t.Helper()
	a.send(t, &commands.MIGletMessage{Message: &commands.MIGletMessage_Event{Event: &commands.EventNotification{
		Type: "error", VmId: a.vm, Data: map[string]string{"auth_token": p.text("event on a stream"), "note": visible},
	}}})
	a.send(t, &commands.MIGletMessage{Message: &commands.MIGletMessage_Error{Error: &commands.ErrorNotification{
		Code: "x", Message: "y", Details: map[string]string{"auth_token": p.text("error on a stream")},
	}}})
	a.send(t, ackOf(&commands.CommandAck{CommandId: acked, Success: true, Result: map[string]string{
		"new_password": p.text("result of an ack"), "note": visible,
	}}))
	for path, body := range map[string]string{
		"events": fmt.Sprintf(`{"type":"error","note":%q,"apiKey":%d,"metadata":{"list":[{"secret":{"x":%q}}]}}`,
			visible, p.number("event over HTTP"), p.text("nested in an event over HTTP")),
		"heartbeat": fmt.Sprintf(`{"type":"job_heartbeat","miglet_state":"idle","to\u006ben":%q}`, p.text("heartbeat over HTTP")),
	} {
		require.Equal(t, http.StatusOK, p.request(t, http.MethodPost, "/api/v1/vms/vm-http/"+path, body,
			"Content-Type", jsonContent, "Authorization", "Bearer "+p.text("Authorization of an agent")).status)
	}
}

// malformed makes requests whose errors could contain secrets.
func (p *planted) malformed(t *testing.T) {
	t.Helper()
	for _, params := range []string{
		`"intParams":{"a_token":"%s"}`, `"boolParams":{"a_token":"%s"}`, `"stringParams":{"a_token":{"x":"%s"}}`,
		`"stringParams":{"a_token":%s}`, `"stringParams":{"a_token":"%s" "x"}`, `"stringParams":{"registration_token":"%s"}`,
		`"stringParams":{"a_token":"%s` + strings.Repeat("x", 20_000) + `"}`,
	} {
		body := `{"vmId":"vm-1","command":{"type":"x",` + fmt.Sprintf(params, p.text("malformed request")) + `}}`
		refused := p.request(t, http.MethodPost, sendCommand, body, "Content-Type", jsonContent, "Authorization", "Bearer "+p.operator)
		require.Equal(t, http.StatusBadRequest, refused.status)
		require.Empty(t, p.found([]byte(refused.body.Message)), refused.body.Message)
	}
}

// readEverything calls every method that returns records, and every page.
func (p *planted) readEverything(t *testing.T) {
	t.Helper()
	ctx := t.Context()
	for _, r := range p.commands(t, "") {
		p.command(t, r.GetCommand().GetId())
	}
	for _, v := range p.vms(t) {
		p.vm(t, v.GetVmId())
		_, err := p.admin.ListHeartbeats(ctx, &migcontrollerv1.ListHeartbeatsRequest{VmId: v.GetVmId()})
		require.NoError(t, err)
	}
	_, err := p.admin.ListEvents(ctx, &migcontrollerv1.ListEventsRequest{})
	require.NoError(t, err)
	_, err = p.admin.GetServerInfo(ctx, &migcontrollerv1.GetServerInfoRequest{})
	require.NoError(t, err)
	_, err = p.admin.SetLogLevel(ctx, &migcontrollerv1.SetLogLevelRequest{
		Level: migcontrollerv1.LogLevel_LOG_LEVEL_DEBUG, Duration: durationpb.New(time.Minute),
	})
	require.NoError(t, err)
	for _, path := range []string{"/metrics", "/health", "/ready", "/ready?verbose", "/openapi.json"} {
		require.Equal(t, http.StatusOK, p.ask(t, path, "Bearer "+p.operator), path)
	}
}

// inFiles returns the secrets in the files of the data directory.
func (p *planted) inFiles(t *testing.T) (where []string) {
	t.Helper()
	for _, text := range p.files(t) {
		where = append(where, p.found(text)...)
	}
	slices.Sort(where)
	return slices.Compact(where)
}

func (p *planted) files(t *testing.T) map[string][]byte {
	t.Helper()
	files := map[string][]byte{}
	require.NoError(t, filepath.WalkDir(p.dataDir(t), func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return nil //nolint:nilerr // it was removed meanwhile
		}
		if files[path], err = os.ReadFile(path); os.IsNotExist(err) {
			return nil
		}
		return err
	}))
	return files
}

// requireNone requires that no secret is in anything that the controller wrote.
func (p *planted) requireNone(t *testing.T) {
	t.Helper()
	require.Empty(t, p.found(p.answers.bytes()), "in answers")
	require.Empty(t, p.found(p.spans.bytes()), "in spans")
	for _, log := range p.logs {
		for secret, where := range p.plants {
			require.Empty(t, log.lines(secret), "in the log, from "+where)
		}
	}
}

// Secrets reach agents, also after a restart and in a poll, and are in nothing else that the
// controller writes; in its database, they are only until their command ends.
func testPlantedSecrets(t *testing.T) {
	p := startPlanted(t)
	p.useCredentials(t)
	w := p.watch(t)
	a := p.connectRegistered(t, "vm-1")
	done := p.order(t, "vm-1", "succeeded")
	requireReceived(t, a, done)
	p.reportSecrets(t, a, "succeeded")
	p.awaitEnd(t, "succeeded", succeeded)
	refused := p.order(t, "vm-1", "failed")
	requireReceived(t, a, refused)
	a.send(t, ackOf(&commands.CommandAck{CommandId: "failed"}))
	p.awaitEnd(t, "failed", failed)
	late := p.order(t, "vm-1", "timed-out", func(r *sendRequest) { r.AckTimeout = durationpb.New(time.Second) })
	requireReceived(t, a, late)
	stop := a.beatEvery(t, 200*time.Millisecond)
	p.order(t, "vm-never", "expired", withTTL(time.Second))
	cancelled := p.order(t, "vm-never", "cancelled")
	open := p.order(t, "vm-2", "open")
	_, err := p.admin.CancelCommand(t.Context(), &migcontrollerv1.CancelCommandRequest{CommandId: "cancelled"})
	require.NoError(t, err)
	polled := p.order(t, "vm-http", "polled", withAckTimeout(time.Second))
	_, text := p.get(t, "/api/v1/vms/vm-http/commands")
	if !strings.Contains(text, `"polled"`) { // register_runner came first
		p.request(t, http.MethodPost, "/api/v1/vms/vm-http/events", `{"type":"runner_registered"}`, "Content-Type", jsonContent)
		await(t, func() bool {
			_, text = p.get(t, "/api/v1/vms/vm-http/commands")
			return strings.Contains(text, `"polled"`)
		}, "it is not polled")
	}
	require.Contains(t, text, polled.GetStringParams()["API_KEY"])
	p.malformed(t)
	p.awaitEnd(t, "timed-out", timedOut)
	p.awaitEnd(t, "expired", expired)
	p.awaitEnd(t, "polled", timedOut)
	stop()

	b := p.connectRegistered(t, "vm-3")
	redelivered := p.order(t, "vm-3", "redelivered")
	requireReceived(t, b, redelivered)
	p.readEverything(t)
	require.NotEmpty(t, p.inFiles(t), "those of open commands; otherwise this test is blind")
	p.kill()
	p.start(t)
	b = p.connect(t, "vm-3")
	requireReceived(t, b, redelivered)
	b.ack(t, "redelivered")
	p.awaitEnd(t, "redelivered", succeeded)
	c := p.connect(t, "vm-2")
	for m := c.next(t); m.GetId() != "open"; m = c.next(t) { // register_runner is before it or after it
		c.ack(t, m.GetId())
		c.report(t, "runner_registered", "")
	}
	require.NotZero(t, w.count())
	for _, sent := range []*commands.Command{done, refused, late, cancelled, redelivered, open} {
		vm := p.command(t, sent.GetId()).GetVmId()
		p.repeat(t, vm, sent)
	}
	c.ack(t, "open")
	p.awaitEnd(t, "open", succeeded)
	p.readEverything(t)
	awaitFor(t, 3*patience, func() bool { return len(p.inFiles(t)) == 0 }, "secrets of ended commands stay in the files")
	p.terminate(t)
	require.Empty(t, p.inFiles(t))
	p.requireNone(t)
	p.requireSeen(t)
}

// requireSeen requires that everything was looked at.
func (p *planted) requireSeen(t *testing.T) {
	t.Helper()
	for _, file := range []protoreflect.FileDescriptor{
		migcontrollerv1.File_migcontroller_v1_admin_service_proto, migcontrollerv1.File_migcontroller_v1_access_service_proto,
	} {
		service := file.Services().Get(0)
		for i := range service.Methods().Len() {
			procedure := "/" + string(service.FullName()) + "/" + string(service.Methods().Get(i).Name())
			require.True(t, p.answers.paths[procedure], procedure)
		}
	}
	require.Contains(t, string(p.answers.bytes()), visible)
	require.Contains(t, string(p.spans.bytes()), "command deliver")
	require.NotEmpty(t, p.logs[1].lines(`"level":"DEBUG"`))
	journal := 0
	for path, text := range p.files(t) {
		if strings.HasSuffix(path, ".json") && bytes.Contains(text, []byte("(hidden)")) {
			journal++
		}
	}
	require.GreaterOrEqual(t, journal, 3, "events and a heartbeat with hidden members")
}

// The private key of the certificate is in no log, and in no file of the controller.
func testPlantedKey(t *testing.T) {
	dir := t.TempDir()
	cert, key := filepath.Join(dir, "controller.pem"), filepath.Join(dir, "key.pem")
	identity := testkit.NewIdentity(t, time.Now().Add(time.Hour))
	identity.Write(t, cert, key)
	p := &planted{plants: plants{}, answers: new(tape), spans: new(tape)}
	for line := range strings.Lines(string(identity.Key)) {
		if !strings.HasPrefix(line, "-----") {
			p.plants[strings.TrimSpace(line)] = "private key"
		}
	}
	require.NotEmpty(t, p.plants)
	p.controller = startController(t, "--log-level=debug", "--tls-cert="+cert, "--tls-key="+key)
	p.logs = append(p.logs, &p.out)
	require.NoError(t, os.WriteFile(key, append([]byte("damaged"), identity.Key[40:]...), 0o600))
	require.NoError(t, p.cmd.Process.Signal(os.Interrupt))
	<-p.exited
	require.Empty(t, p.inFiles(t))
	p.requireNone(t)
	failing := newController(t, "--tls-cert="+cert, "--tls-key="+key)
	failing.child = startChild(t, exec.CommandContext(t.Context(), program(t, "controller"), failing.options...))
	<-failing.exited
	p.logs = append(p.logs, &failing.out)
	require.NotEmpty(t, failing.out.lines("tls"), failing.out.String())
	p.requireNone(t)
}
