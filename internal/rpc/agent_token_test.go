package rpc

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	migcontrollerv1 "github.com/mig-controller/mig-controller/gen/go/migcontroller/v1"
	"github.com/mig-controller/mig-controller/internal/registration"
)

// A token request is checked and passed on.
func TestRequestRegistrationToken(t *testing.T) {
	t.Parallel()
	fake := &fakeAgents{runner: registration.Runner{
		Token: "tok", ExpiresAt: receivedAt, URL: "https://runners.example/x", Group: "g", Labels: []string{"a"},
	}}
	got, err := agentService{fake}.RequestRegistrationToken(t.Context(), &migcontrollerv1.RequestRegistrationTokenRequest{
		VmId: "vm-1", OrgId: "o", PoolId: "p", RunnerGroup: "wanted group", Labels: []string{"x", "y"},
	})
	require.NoError(t, err)
	require.Equal(t, []tokenCall{{"vm-1", "wanted group", []string{"x", "y"}}}, fake.tokens)
	require.Equal(t, "tok", got.GetRegistrationToken())
	require.Equal(t, receivedAt, got.GetExpiresAt().AsTime())
	require.Equal(t, "https://runners.example/x", got.GetRunnerUrl())
	require.Equal(t, "g", got.GetRunnerGroup())
	require.Equal(t, []string{"a"}, got.GetLabels())

	for _, test := range []struct {
		rule string
		req  *migcontrollerv1.RequestRegistrationTokenRequest
	}{
		{"vm_id must be 1 to", &migcontrollerv1.RequestRegistrationTokenRequest{}},
		{"vm_id must be 1 to", &migcontrollerv1.RequestRegistrationTokenRequest{VmId: "vm/1"}},
		{"org_id must be 1 to", &migcontrollerv1.RequestRegistrationTokenRequest{VmId: "vm-1", OrgId: "."}},
		{"pool_id must be 1 to", &migcontrollerv1.RequestRegistrationTokenRequest{VmId: "vm-1", PoolId: "a b"}},
		{
			"runner_group must be a text of at most 128",
			&migcontrollerv1.RequestRegistrationTokenRequest{VmId: "vm-1", RunnerGroup: strings.Repeat("x", 129)},
		},
		{
			"labels must have at most 100 entries",
			&migcontrollerv1.RequestRegistrationTokenRequest{VmId: "vm-1", Labels: make([]string, 101)},
		},
		{
			"labels must have texts of 1 to 256 bytes",
			&migcontrollerv1.RequestRegistrationTokenRequest{VmId: "vm-1", Labels: []string{"a", ""}},
		},
		{
			"labels must have texts of 1 to 256 bytes",
			&migcontrollerv1.RequestRegistrationTokenRequest{VmId: "vm-1", Labels: []string{strings.Repeat("x", 257)}},
		},
	} {
		_, err := agentService{fake}.RequestRegistrationToken(t.Context(), test.req)
		requireRule(t, test.rule, err)
	}
	require.Len(t, fake.tokens, 1)
}
