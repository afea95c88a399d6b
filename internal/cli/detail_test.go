package cli

import (
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/require"

	migcontrollerv1 "github.com/mig-controller/mig-controller/gen/go/migcontroller/v1"
)

// withDetail returns an error with an ErrorDetail, as the controller sends it.
func withDetail(t *testing.T, code connect.Code, text string, detail *migcontrollerv1.ErrorDetail) error {
	t.Helper()
	err := connect.NewError(code, errors.New(text))
	d, bad := connect.NewErrorDetail(detail)
	require.NoError(t, bad)
	err.AddDetail(d)
	return err
}

// A validation error names the flag or argument that sets the field, or the field itself
// if there is none.
func TestInvalidField(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		field string
		line  string
		want  string
	}{
		{"command.type", "send vm-1 drain", "<type> must fit"},
		{"vm_id", "send vm-1 drain", "<vm> must fit"},
		{"vm_id", "events --vm x", "--vm must fit"},
		{"command.id", "send vm-1 drain --id x", "--id must fit"},
		{"ttl", "send vm-1 drain", "--ttl must fit"},
		{"ack_timeout", "send vm-1 drain", "--ack-timeout must fit"},
		{"command.string_params[registration_token]", "send vm-1 drain", "--param registration_token must fit"},
		{"command.int_params", "send vm-1 drain", "--int must fit"},
		{"command.string_array_params", "send vm-1 drain", "--list must fit"},
		{"page_size", "vms", "--limit must fit"},
		{"states", "commands", "--state must fit"},
		{"until", "events", "--until must fit"},
		{"cursor", "watch", "--cursor must fit"},
		{"command_id", "command x", "<id> must fit"},
		{"page_token", "vms", "page_token must fit"},
	} {
		d := newDriver(t)
		d.fleet.fail = func(any) error {
			return withDetail(t, connect.CodeInvalidArgument, test.field+" must fit", &migcontrollerv1.ErrorDetail{
				Reason: migcontrollerv1.ErrorReason_ERROR_REASON_INVALID_FIELD, Field: test.field, Rule: "must fit",
			})
		}
		_, stderr, code := d.run(strings.Fields(test.line)...)
		require.Contains(t, stderr, test.want+"\n", test.line)
		require.Equal(t, exitUsage, code, test.line)
	}
}

// The hint depends on the reason, not only on the code.
func TestReasons(t *testing.T) {
	t.Parallel()
	for reason, test := range map[migcontrollerv1.ErrorReason]struct {
		code    connect.Code
		exit    int
		message string
	}{
		migcontrollerv1.ErrorReason_ERROR_REASON_COMMAND_ID_TAKEN: {connect.CodeAlreadyExists, exitFailed, "Choose another --id, or omit it"},
		migcontrollerv1.ErrorReason_ERROR_REASON_COMMAND_ENDED:    {connect.CodeFailedPrecondition, exitFailed, "shows how"},
		migcontrollerv1.ErrorReason_ERROR_REASON_STOPPING:         {connect.CodeUnavailable, exitUnavailable, "controller is running again"},
		migcontrollerv1.ErrorReason_ERROR_REASON_UNAVAILABLE:      {connect.CodeUnavailable, exitUnavailable, "see the controller's log"},
	} {
		d := newDriver(t)
		d.fleet.fail = func(any) error {
			return withDetail(t, test.code, "no", &migcontrollerv1.ErrorDetail{Reason: reason})
		}
		_, stderr, code := d.run("vms")
		require.Equal(t, test.exit, code, reason)
		require.Contains(t, stderr, test.message, reason)
	}
}

// With structured output an error is one line of JSON or one YAML document on stderr, and
// stdout is empty.
func TestStructuredErrors(t *testing.T) {
	t.Parallel()
	d := newDriver(t)
	d.fleet.fail = func(any) error {
		return withDetail(t, connect.CodeInvalidArgument, "ttl must fit", &migcontrollerv1.ErrorDetail{
			Reason: migcontrollerv1.ErrorReason_ERROR_REASON_INVALID_FIELD, Field: "ttl", Rule: "must fit",
		})
	}
	d.golden("error-json", "send", "vm-1", "drain", "-o", "json")
	d.golden("error-yaml", "send", "vm-1", "drain", "-o", "yaml")
	d = newDriver(t)
	d.golden("error-json-many", "cancel", "nope", "ctl-aa02", "-o", "json")
	d.golden("error-json-usage", "commands", "--state", "done", "-o", "json")
	_, stderr, _ := d.run("vm", "vm-9", "-o", "json")
	require.True(t, json.Valid([]byte(stderr)), stderr)
	require.Equal(t, 1, strings.Count(stderr, "\n"))
}

// Similar VM ids are suggested for an unknown VM, also by send on a terminal.
func TestSimilarNames(t *testing.T) {
	t.Parallel()
	d := newDriver(t)
	d.golden("vm-near", "vm", "vm1")
	d.terminal(80, "")
	d.golden("send-unknown", "send", "VM-l", "drain")
	d.golden("send-offline", "send", "vm-2", "drain")
}

// Above maxInspected VMs there are no warnings before sending, because each VM would need
// a request.
func TestNoWarningsForManyVMs(t *testing.T) {
	t.Parallel()
	for n, requests := range map[int]int{maxInspected: maxInspected, maxInspected + 1: 0} {
		d := newDriver(t)
		d.terminal(80, "")
		d.run(append([]string{"drain", "--wait", "1s"}, slices.Repeat([]string{"vm-1"}, n)...)...)
		require.Len(t, requestsOf[*migcontrollerv1.GetVMRequest](d.fleet), requests)
		require.NotEmpty(t, requestsOf[*migcontrollerv1.SendCommandRequest](d.fleet))
	}
}
