package e2e

import (
	"encoding/json"
	"math"
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"

	migcontrollerv1 "github.com/mig-controller/mig-controller/gen/go/migcontroller/v1"
	"github.com/mig-controller/mig-controller/gen/go/miglet/commands"
)

// TestNumbersInFiles defends scripts that read the files: integers from the stream are JSON
// numbers, and a report over HTTP has them as they were sent. Where they would have to be
// doubles, they are shown as text.
func TestNumbersInFiles(t *testing.T) {
	t.Parallel()
	vm := newVM()
	const numbers = `"n":9007199254740993,"huge":1e400,"long":0.1000000000000000055,"zero":-0,"exp":[1E+2]`
	body := `{"type":"numbers","vm_id":"` + vm + `",` + numbers + `}`
	status, answer := shared.call(t, http.MethodPost, shared.httpAddr, "/api/v1/vms/"+vm+"/events", body)
	require.Equal(t, http.StatusOK, status, string(answer))
	require.Equal(t, body, compact(t, shared.awaitFile(t, vm, "event-numbers-")))
	status, answer = shared.call(t, http.MethodPost, shared.httpAddr, "/api/v1/vms/"+vm+"/heartbeat", `{`+numbers+`}`)
	require.Equal(t, http.StatusOK, status, string(answer))
	require.Equal(t, `{`+numbers+`}`, compact(t, shared.awaitFile(t, vm, "heartbeat-")))

	res, err := shared.admin.ListEvents(t.Context(), &migcontrollerv1.ListEventsRequest{VmId: vm, Type: "numbers"})
	require.NoError(t, err)
	shown := res.GetEvents()[0].GetBody().AsMap()
	require.Equal(t, "9007199254740993", shown["n"])
	require.Equal(t, "1e400", shown["huge"])
	require.InDelta(t, 0.1, shown["long"], 0)

	a := shared.connect(t, vm)
	require.NoError(t, a.event(&commands.EventNotification{
		Type: "on_stream", VmId: vm, Timestamp: math.MaxInt64, Data: map[string]string{"timestamp": "7"},
	}))
	require.JSONEq(t, `{"type":"on_stream","vm_id":"`+vm+`","data":{"timestamp":"7"},"timestamp":9223372036854775807}`,
		compact(t, shared.awaitFile(t, vm, "grpc-event-on_stream-")))
	require.Contains(t, compact(t, shared.awaitFile(t, vm, "grpc-event-on_stream-")), `"timestamp":9223372036854775807`)
	a.beat("idle", func(h *commands.Heartbeat) {
		h.Health = &commands.VMHealth{MemoryUsedBytes: 1 << 60, MemoryTotalBytes: math.MaxInt64}
	})
	require.Contains(t, compact(t, shared.awaitFile(t, vm, "grpc-heartbeat-")),
		`"memory_total_bytes":9223372036854775807,"memory_used_bytes":1152921504606846976`)
}

func compact(t *testing.T, file []byte) string {
	t.Helper()
	var value json.RawMessage
	require.NoError(t, json.Unmarshal(file, &value))
	text, err := json.Marshal(value)
	require.NoError(t, err)
	return string(text)
}
