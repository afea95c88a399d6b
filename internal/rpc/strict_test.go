package rpc

import (
	"testing"

	"github.com/stretchr/testify/require"

	migcontrollerv1 "github.com/mig-controller/mig-controller/gen/go/migcontroller/v1"
)

// What is misspelt is told, by its name; what is right in either spelling is
// taken.
func TestStrictJSON(t *testing.T) {
	t.Parallel()
	for body, says := range map[string]string{
		`{"vm_id": "vm-1", "states": ["COMMAND_STATE_PENDING"], "pageSize": 1}`: "",
		`{"states": ["PENDING"]}`:        `invalid value for enum field states: "PENDING"`,
		`{"stats": []}`:                  `unknown field "stats"`,
		`{"vm_id": "vm-1", "vmId": "x"}`: `duplicate field`,
		`{"vm_id": 7}`:                   `invalid value for string field vmId: 7`,
		`[]`:                             `unexpected token [`,
		` `:                              `at least {}`,
	} {
		err := strictJSON{}.Unmarshal([]byte(body), new(migcontrollerv1.ListCommandsRequest))
		if says == "" {
			require.NoError(t, err, body)
			continue
		}
		require.ErrorContains(t, err, says)
		require.ErrorContains(t, err, "the request must be ")
		require.NotContains(t, err.Error(), "proto:")
	}
}
