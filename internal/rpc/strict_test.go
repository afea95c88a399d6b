package rpc

import (
	"testing"

	"github.com/stretchr/testify/require"

	migcontrollerv1 "github.com/mig-controller/mig-controller/gen/go/migcontroller/v1"
	"github.com/mig-controller/mig-controller/gen/go/migcontroller/v1/migcontrollerv1connect"
)

// The error for a misspelt member names it; both spellings of a member are accepted.
func TestStrictJSON(t *testing.T) {
	t.Parallel()
	for body, message := range map[string]string{
		`{"vm_id": "vm-1", "states": ["COMMAND_STATE_PENDING"], "pageSize": 1}`: "",
		`{"states": ["PENDING"]}`:        `invalid value for enum field states: "PENDING"`,
		`{"stats": []}`:                  `unknown field "stats"`,
		`{"vm_id": "vm-1", "vmId": "x"}`: `duplicate field`,
		`{"vm_id": 7}`:                   `invalid value for string field vmId: 7`,
		`[]`:                             `unexpected token [`,
		` `:                              `at least {}`,
	} {
		err := strictJSON{}.Unmarshal([]byte(body), new(migcontrollerv1.ListCommandsRequest))
		if message == "" {
			require.NoError(t, err, body)
			continue
		}
		require.ErrorContains(t, err, message)
		require.ErrorContains(t, err, "the request must ")
		require.NotContains(t, err.Error(), "proto:")
	}
}

// AdminService refuses unknown members in each form of JSON; AgentService, whose callers
// cannot be changed, does not.
func TestStrictJSONIsServed(t *testing.T) {
	t.Parallel()
	base := "http://" + serve(t, NewHandler(config(&fakeAgents{})))
	const body = `{"vmId": "vm-1", "vm": "vm-1"}`
	for _, form := range []string{"application/json", "application/json; charset=utf-8"} {
		got := do(t, client(t, 1), "POST", base+migcontrollerv1connect.AdminServiceGetVMProcedure, body, "Content-Type", form)
		require.Equal(t, 400, got.status, form)
		require.Contains(t, got.body, `unknown field \"vm\"`, form)
		got = do(t, client(t, 1), "POST", base+migcontrollerv1connect.AgentServicePollCommandsProcedure, body, "Content-Type", form)
		require.Equal(t, 200, got.status, form)
	}
}

// The error for a parameter of the wrong type omits its value, which may be a secret.
func TestErrorsOmitParameters(t *testing.T) {
	t.Parallel()
	for _, params := range []string{
		`"stringParams": {"a_token": 1234567}`,
		`"stringParams": {"a_token": -1234567.5}`,
		`"stringParams": {"a_token": ["1234567"]}`,
		`"stringParams": {"a_token" "1234567"}`,
		`"stringParams": {"a_token": 1234567z}`,
		`"stringParams": {"a_token": 1234567`,
		`"stringParams": {"a_token": "1234567\z"}`,
		`"stringParams": {"a_token": "\u12_1234567"}`,
		`"stringParams": {"a_token": x1234567}`,
		`"stringParams": {"a_token": "` + "\n" + `1234567"}`,
		`"stringParams": {"a_token": "1234567` + "\xff" + `"}`,
		`"stringParams": {"a_token": "1234567" "1234567"}`,
		`"stringParams": "1234567"`,
		`"intParams": {"a_token": "x1234567"}`,
		`"intParams": {"a_token": 12345679999999999999}`,
		`"boolParams": {"a_token": "1234567"}`,
		`"boolParams": {"a_token": 1234567}`,
		`"stringParams": {"a_token": "1", "a_token": "1234567"}`,
	} {
		err := strictJSON{}.Unmarshal([]byte(`{"command": {`+params+`}}`), new(migcontrollerv1.SendCommandRequest))
		require.Error(t, err, params)
		require.NotContains(t, err.Error(), "1234567", params)
	}
}
