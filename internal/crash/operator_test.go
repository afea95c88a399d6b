package crash

import (
	"context"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	migcontrollerv1 "github.com/mig-controller/mig-controller/gen/go/migcontroller/v1"
	"github.com/mig-controller/mig-controller/gen/go/migcontroller/v1/migcontrollerv1connect"
	"github.com/mig-controller/mig-controller/gen/go/miglet/commands"
)

// callTimeout is how long one call may take.
const callTimeout = 10 * time.Second

// operator calls a controller over one HTTP/2 connection, and over HTTP/1.1.
type operator struct {
	url    string
	admin  migcontrollerv1connect.AdminServiceClient
	access migcontrollerv1connect.AccessServiceClient
	web    *http.Client

	streams *http.Transport
	plain   *http.Transport
}

func newOperator(url string) operator {
	o := operator{url: url, streams: newTransport(), plain: &http.Transport{}}
	o.admin = migcontrollerv1connect.NewAdminServiceClient(&http.Client{Transport: o.streams}, url)
	o.access = migcontrollerv1connect.NewAccessServiceClient(&http.Client{Transport: o.streams}, url)
	o.web = &http.Client{Transport: o.plain, Timeout: callTimeout}
	return o
}

// newTransport uses plaintext HTTP/2.
func newTransport() *http.Transport {
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	return &http.Transport{Protocols: protocols}
}

func (o operator) hangUp() {
	if o.streams != nil {
		o.streams.CloseIdleConnections()
		o.plain.CloseIdleConnections()
	}
}

// send sends a command with this id.
func (o operator) send(ctx context.Context, id string, request *migcontrollerv1.SendCommandRequest) (
	*migcontrollerv1.CommandRecord, error,
) {
	if request.Command == nil {
		request.Command = &commands.Command{Type: "set_log_level", StringParams: map[string]string{"level": "debug"}}
	}
	request.Command.Id = id
	ctx, cancel := context.WithTimeout(ctx, callTimeout+request.GetWait().AsDuration())
	defer cancel()
	answer, err := o.admin.SendCommand(ctx, request)
	return answer.GetCommand(), err
}

// mustSend sends a command with this id to the VM.
func (o operator) mustSend(t *testing.T, vm, id string) *migcontrollerv1.CommandRecord {
	t.Helper()
	record, err := o.send(t.Context(), id, &migcontrollerv1.SendCommandRequest{VmId: vm})
	require.NoError(t, err)
	return record
}

// command returns one command.
func (o operator) command(t *testing.T, id string) *migcontrollerv1.CommandRecord {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), callTimeout)
	defer cancel()
	answer, err := o.admin.GetCommand(ctx, &migcontrollerv1.GetCommandRequest{CommandId: id})
	require.NoError(t, err, "command %s", id)
	return answer.GetCommand()
}

// commands lists all commands that match the filter, in order of acceptance.
func (o operator) commands(t *testing.T, filter *migcontrollerv1.ListCommandsRequest) []*migcontrollerv1.CommandRecord {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), callTimeout)
	defer cancel()
	var all []*migcontrollerv1.CommandRecord
	for filter.PageSize = 500; ; {
		page, err := o.admin.ListCommands(ctx, filter)
		require.NoError(t, err)
		all = append(all, page.GetCommands()...)
		if filter.PageToken = page.GetNextPageToken(); filter.GetPageToken() == "" {
			slices.Reverse(all)
			return all
		}
	}
}

// sent returns how many audit events there are of commands that were sent to the VM, by
// command.
func (o operator) sent(t *testing.T, vm string) map[string]int {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), callTimeout)
	defer cancel()
	all := map[string]int{}
	filter := &migcontrollerv1.ListAuditEventsRequest{VmId: vm, Action: "AdminService/SendCommand", Outcome: "ok", PageSize: 500}
	for {
		page, err := o.access.ListAuditEvents(ctx, filter)
		require.NoError(t, err)
		for _, e := range page.GetEvents() {
			all[e.GetCommandId()]++
		}
		if filter.PageToken = page.GetNextPageToken(); filter.GetPageToken() == "" {
			return all
		}
	}
}

// events lists all events of the VM, or of all VMs, in order of arrival.
func (o operator) events(t *testing.T, vm string) []*migcontrollerv1.Event {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), callTimeout)
	defer cancel()
	var all []*migcontrollerv1.Event
	for filter := (&migcontrollerv1.ListEventsRequest{VmId: vm, PageSize: 500}); ; {
		page, err := o.admin.ListEvents(ctx, filter)
		require.NoError(t, err)
		all = append(all, page.GetEvents()...)
		if filter.PageToken = page.GetNextPageToken(); filter.GetPageToken() == "" {
			slices.Reverse(all)
			return all
		}
	}
}

// vms lists the VMs, which fit on one page.
func (o operator) vms(t *testing.T) map[string]*migcontrollerv1.VM {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), callTimeout)
	defer cancel()
	page, err := o.admin.ListVMs(ctx, &migcontrollerv1.ListVMsRequest{PageSize: 1000})
	require.NoError(t, err)
	require.Empty(t, page.GetNextPageToken())
	byID := map[string]*migcontrollerv1.VM{}
	for _, vm := range page.GetVms() {
		byID[vm.GetVmId()] = vm
	}
	return byID
}

// vm returns one VM.
func (o operator) vm(t *testing.T, id string) *migcontrollerv1.VM {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), callTimeout)
	defer cancel()
	answer, err := o.admin.GetVM(ctx, &migcontrollerv1.GetVMRequest{VmId: id})
	require.NoError(t, err, "VM %s", id)
	return answer.GetVm()
}

// waitState waits until the command is in the state, and returns it.
func (o operator) waitState(t *testing.T, id string, want migcontrollerv1.CommandState) *migcontrollerv1.CommandRecord {
	t.Helper()
	var record *migcontrollerv1.CommandRecord
	eventually(t, func() bool {
		record = o.command(t, id)
		return record.GetState() == want
	}, "command %s does not get to %s", id, want)
	return record
}

// post posts a JSON body to a path over HTTP/1.1, as agents without a stream do, and
// returns status and answer.
func (o operator) post(ctx context.Context, path, body string) (status int, answer string, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, o.url+path, strings.NewReader(body))
	if err != nil {
		return 0, "", err
	}
	request.Header.Set("Content-Type", "application/json")
	return o.do(request)
}

// get gets a path over HTTP/1.1.
func (o operator) get(t *testing.T, path string) (status int, answer string) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, o.url+path, http.NoBody)
	require.NoError(t, err)
	status, answer, err = o.do(request)
	require.NoError(t, err)
	return status, answer
}

func (o operator) do(request *http.Request) (status int, answer string, err error) {
	response, err := o.web.Do(request)
	if err != nil {
		return 0, "", err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, 1<<20))
	return response.StatusCode, string(body), err
}

// eventually waits until the condition holds. The condition may fail the test.
func eventually(t *testing.T, condition func() bool, message string, args ...any) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for late := time.After(patience); !condition(); {
		select {
		case <-tick.C:
		case <-late:
			require.FailNowf(t, "waited too long", message, args...)
		}
	}
}

// await waits for a value from a channel; the zero value if it is closed.
func await[T any](t *testing.T, from <-chan T, what string) T {
	t.Helper()
	select {
	case got := <-from:
		return got
	case <-time.After(patience):
		require.FailNow(t, "waited too long", what)
		panic("not reached")
	}
}

// ids are the ids of the commands.
func ids(records []*migcontrollerv1.CommandRecord) []string {
	var all []string
	for _, r := range records {
		all = append(all, r.GetCommand().GetId())
	}
	return all
}
