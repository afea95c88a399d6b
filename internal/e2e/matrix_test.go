package e2e

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	migcontrollerv1 "github.com/mig-controller/mig-controller/gen/go/migcontroller/v1"
	"github.com/mig-controller/mig-controller/gen/go/miglet/commands"
)

// matrix is a controller that needs credentials, with a VM in each of two pools.
type matrix struct {
	*controller
	client *http.Client
	root   string // the secret of an admin of all pools
	calls  int
}

// matrixCall is a request of a method that concerns a VM and its pool.
type matrixCall struct {
	// body returns the request, in JSON.
	body func(t *testing.T, m *matrix, vm, pool string) string
	// foreign is the outcome for callers who are limited to other pools: a code, or ok for an
	// answer that does not show the VM.
	foreign string
	// about is whether the answer shows the VM to callers who see it.
	about bool
}

// fixed is a body that depends on the VM and its pool only.
func fixed(text string) func(*testing.T, *matrix, string, string) string {
	return func(_ *testing.T, _ *matrix, vm, pool string) string {
		return strings.NewReplacer("VM", vm, "POOL", pool).Replace(text)
	}
}

// matrixCalls has a request for each method for operators.
var matrixCalls = map[string]matrixCall{
	"AdminService/SendCommand":    {fixed(`{"vmId":"VM","command":{"type":"set_log_level"}}`), "not_found", true},
	"AdminService/GetCommand":     {fixed(`{"commandId":"of-VM"}`), "not_found", true},
	"AdminService/ListCommands":   {fixed(`{"pageSize":1000}`), "ok", true},
	"AdminService/CancelCommand":  {cancellable, "not_found", true},
	"AdminService/GetVM":          {fixed(`{"vmId":"VM"}`), "not_found", true},
	"AdminService/ListVMs":        {fixed(`{}`), "ok", true},
	"AdminService/ListEvents":     {fixed(`{}`), "ok", true},
	"AdminService/ListHeartbeats": {fixed(`{"vmId":"VM"}`), "not_found", true},
	"AdminService/WatchFleet":     {fixed(`{}`), "ok", false},
	"AdminService/GetServerInfo":  {fixed(`{}`), "ok", false},
	"AdminService/SetLogLevel":    {fixed(`{"level":"LOG_LEVEL_DEBUG"}`), "ok", false},

	"AccessService/WhoAmI":          {fixed(`{}`), "ok", false},
	"AccessService/CreateToken":     {fixed(`{"name":"new-VM","role":"ROLE_VIEWER","pools":["POOL"]}`), "permission_denied", true},
	"AccessService/ListTokens":      {fixed(`{"pageSize":1000}`), "ok", true},
	"AccessService/RevokeToken":     {revocable, "not_found", true},
	"AccessService/ListAuditEvents": {fixed(`{"pageSize":1000}`), "ok", true},
}

// matrixCaller has a token, and sees the pools.
type matrixCaller struct {
	secret string
	role   migcontrollerv1.Role
	pool   string // that it is limited to; empty for all
}

// startMatrix starts the controller, with a VM in each pool that has reported something.
func startMatrix(t *testing.T, pools ...string) *matrix {
	t.Helper()
	c := start(t)
	h2c := &http.Transport{Protocols: new(http.Protocols)}
	h2c.Protocols.SetUnencryptedHTTP2(true)
	t.Cleanup(h2c.CloseIdleConnections)
	m := &matrix{controller: c, client: &http.Client{Transport: h2c}}
	m.root = m.token(t, "root", migcontrollerv1.Role_ROLE_ADMIN, "")
	conn := dial(t, c.grpcAddr)
	for _, pool := range pools {
		vm := "vm-" + pool
		s, err := openStream(t.Context(), conn)
		require.NoError(t, err)
		t.Cleanup(s.end)
		_, err = s.connect(&commands.ConnectRequest{VmId: vm, PoolId: pool})
		require.NoError(t, err)
		require.NoError(t, s.event(&commands.EventNotification{Type: "note", VmId: vm}))
		require.NoError(t, s.rpc.SendMsg(&commands.MIGletMessage{Message: &commands.MIGletMessage_Heartbeat{Heartbeat: &commands.Heartbeat{VmId: vm}}}))
		require.Eventually(t, func() bool {
			_, events := m.call("AdminService/ListEvents", m.root, `{"vmId":"`+vm+`"}`, false)
			_, beats := m.call("AdminService/ListHeartbeats", m.root, `{"vmId":"`+vm+`"}`, false)
			return strings.Contains(events, `"note"`) && strings.Contains(beats, vm)
		}, patience, 20*time.Millisecond)
		m.must(t, "AdminService/SendCommand", `{"vmId":"`+vm+`","command":{"id":"of-`+vm+`","type":"drain"}}`)
		m.token(t, "of-"+vm, migcontrollerv1.Role_ROLE_VIEWER, pool)
	}
	return m
}

// token creates a token, and returns its secret.
func (m *matrix) token(t *testing.T, name string, role migcontrollerv1.Role, pool string) (secret string) {
	t.Helper()
	pools := "[]"
	if pool != "" {
		pools = `["` + pool + `"]`
	}
	var created struct {
		Secret string `json:"secret"`
	}
	answer := m.must(t, "AccessService/CreateToken", fmt.Sprintf(`{"name":%q,"role":%q,"pools":%s}`, name, role, pools))
	require.NoError(t, json.Unmarshal([]byte(answer), &created))
	return created.Secret
}

// cancellable returns a request to cancel a new command of a VM.
func cancellable(t *testing.T, m *matrix, vm, _ string) string {
	t.Helper()
	m.calls++
	id := fmt.Sprintf("new-%d-%s", m.calls, vm)
	m.must(t, "AdminService/SendCommand", `{"vmId":"`+vm+`","command":{"id":"`+id+`","type":"drain"}}`)
	return `{"commandId":"` + id + `"}`
}

// revocable returns a request to revoke a new token that is limited to a pool.
func revocable(t *testing.T, m *matrix, vm, pool string) string {
	t.Helper()
	var created struct {
		Token struct {
			ID string `json:"id"`
		} `json:"token"`
	}
	answer := m.must(t, "AccessService/CreateToken", `{"name":"revocable-`+vm+`","role":"ROLE_VIEWER","pools":["`+pool+`"]}`)
	require.NoError(t, json.Unmarshal([]byte(answer), &created))
	return `{"tokenId":"` + created.Token.ID + `"}`
}

// must makes a call that must succeed, as root.
func (m *matrix) must(t *testing.T, method, body string) (answer string) {
	t.Helper()
	outcome, answer := m.call(method, m.root, body, false)
	require.Equal(t, "ok", outcome, answer)
	return answer
}

// call makes a call, of a stream its first message, and returns its outcome, ok or a code, and
// the answer in JSON.
func (m *matrix) call(method, secret, body string, stream bool) (outcome, answer string) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	content, kind := []byte(body), "application/json"
	if stream {
		content = append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(body))), body...)
		kind = "application/connect+json"
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+m.grpcAddr+"/migcontroller.v1."+method, bytes.NewReader(content))
	if err != nil {
		return err.Error(), ""
	}
	r.Header.Set("Content-Type", kind)
	if secret != "" {
		r.Header.Set("Authorization", "Bearer "+secret)
	}
	response, err := m.client.Do(r)
	if err != nil {
		return err.Error(), ""
	}
	defer response.Body.Close()
	if stream {
		text, err := firstMessage(response.Body)
		return outcomeIn(text, err), text
	}
	text, err := io.ReadAll(response.Body)
	if response.StatusCode == http.StatusOK && err == nil {
		return "ok", string(text)
	}
	return outcomeIn(string(text), err), string(text)
}

// firstMessage reads a message of a stream in Connect's protocol.
func firstMessage(r io.Reader) (string, error) {
	var head [5]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return "", err
	}
	text := make([]byte, binary.BigEndian.Uint32(head[1:]))
	_, err := io.ReadFull(r, text)
	return string(text), err
}

// outcomeIn returns the code of an error, which the end of a stream has inside; ok if there is
// none.
func outcomeIn(text string, err error) string {
	var answer struct {
		Code  string `json:"code"`
		Error struct {
			Code string `json:"code"`
		} `json:"error"`
	}
	if err == nil {
		err = json.Unmarshal([]byte(text), &answer)
	}
	switch code := answer.Code + answer.Error.Code; {
	case err != nil:
		return err.Error()
	case code == "":
		return "ok"
	default:
		return code
	}
}

// Each method, called with each role and without credentials, by callers of all pools and of
// one, about a VM in it and in another, does what its option in the schema and the pools allow.
// A method without an entry fails.
func TestEveryMethodRoleAndPool(t *testing.T) {
	t.Parallel()
	pools := []string{"own", "foreign"}
	m := startMatrix(t, pools...)
	callers := map[string]matrixCaller{"nobody": {}}
	for role, name := range migcontrollerv1.Role_name {
		for _, pool := range []string{"", "own"} {
			if r := migcontrollerv1.Role(role); r != migcontrollerv1.Role_ROLE_UNSPECIFIED {
				callers[name+" "+pool] = matrixCaller{m.token(t, "caller", r, pool), r, pool}
			}
		}
	}
	methods := 0
	for _, file := range []protoreflect.FileDescriptor{
		migcontrollerv1.File_migcontroller_v1_admin_service_proto, migcontrollerv1.File_migcontroller_v1_access_service_proto,
	} {
		all := file.Services().Get(0).Methods()
		methods += all.Len()
		for i := range all.Len() {
			for name, caller := range callers {
				for _, pool := range pools {
					m.requireOutcome(t, all.Get(i), name, caller, pool)
				}
			}
		}
	}
	require.Len(t, matrixCalls, methods)
}

func (m *matrix) requireOutcome(t *testing.T, method protoreflect.MethodDescriptor, name string, by matrixCaller, pool string) {
	t.Helper()
	action := string(method.Parent().Name()) + "/" + string(method.Name())
	entry, found := matrixCalls[action]
	require.True(t, found, "%s has no entry", action)
	need, _ := proto.GetExtension(method.Options(), migcontrollerv1.E_Requires).(*migcontrollerv1.Requirement)
	require.NotEqual(t, migcontrollerv1.Role_ROLE_UNSPECIFIED, need.GetRole(), action)
	vm, want, shows := "vm-"+pool, "ok", entry.about
	switch {
	case by.secret == "":
		want, shows = "unauthenticated", false
	case by.role < need.GetRole(), need.GetAllPools() && by.pool != "":
		want, shows = "permission_denied", false
	case by.pool != "" && by.pool != pool:
		want, shows = entry.foreign, false
	}
	outcome, answer := m.call(action, by.secret, entry.body(t, m, vm, pool), method.IsStreamingServer())
	what := fmt.Sprintf("%s by %s about %s: %s", action, name, vm, answer)
	require.Equal(t, want, outcome, what)
	if want == "ok" && entry.about {
		require.Equal(t, shows, strings.Contains(answer, vm), what)
	}
}
