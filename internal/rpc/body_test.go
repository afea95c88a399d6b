package rpc

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
)

// exactNumbers are members with numbers that a double does not hold exactly.
const exactNumbers = `"n":9007199254740993,"huge":1e400,"deep":[{"long":0.1000000000000000055,"zero":-0,"exp":1E+2}],` +
	`"many":` + "123456789012345678901234567890" + `,"tiny":1e-400,"text":"1e400 \" 9007199254740993"`

// A report over HTTP is stored as it was sent, apart from white space between its members.
func TestBodiesAreKeptAsSent(t *testing.T) {
	t.Parallel()
	fake := &fakeAgents{}
	base := "http://" + serve(t, NewHandler(config(fake))) + "/api/v1/vms/vm-1"
	event := `{"type":"x",` + exactNumbers + `,"a":1}`
	heartbeat := `{"vm_health":{"cpu_load":1e400,"memory_used":1e400},"current_job":{"job_id":9007199254740993,"run_id":7},` + exactNumbers + `}`
	for _, version := range httpVersions {
		c := client(t, version)
		require.Equal(t, 200, post(t, c, base+"/events", strings.ReplaceAll(event, ",", " ,\n\t")).status)
		require.Equal(t, 200, post(t, c, base+"/heartbeat", heartbeat).status)
	}
	require.Len(t, fake.events, len(httpVersions))
	for i := range fake.events {
		require.Equal(t, event, string(fake.events[i].Body))
		h := fake.heartbeats[i]
		require.Equal(t, heartbeat, string(h.Body))
		require.Equal(t, "9007199254740993", h.Job.JobID)
		require.Equal(t, "7", h.Job.RunID)
		require.Nil(t, h.Health, "a number beyond the range of a double is dropped")
	}
}

// A call of AgentService stores the doubles of its message.
func TestBodiesOfCalls(t *testing.T) {
	t.Parallel()
	kept, err := eventOf(t.Context(), "vm-1", parse(t, `{"type":"x","n":9007199254740992}`))
	require.NoError(t, err)
	require.JSONEq(t, `{"type":"x","n":9007199254740992}`, string(kept.Body))
}

// A number that a double does not hold exactly is returned as a string.
func TestBodyToProtoShowsNumbersExactly(t *testing.T) {
	t.Parallel()
	requireJSON(t, `{"n":"9007199254740993","huge":"1e400","deep":[{"long":0.1,"zero":0,"exp":100}],
		"many":"123456789012345678901234567890","tiny":0,"text":"1e400 \" 9007199254740993"}`,
		bodyToProto(json.RawMessage("{"+exactNumbers+"}")))
	requireJSON(t, `{"body":"9007199254740993"}`, bodyToProto(json.RawMessage("9007199254740993")))
	requireJSON(t, `{"low":-9007199254740992,"lower":"-9007199254740993"}`,
		bodyToProto(json.RawMessage(`{"low":-9007199254740992,"lower":-9007199254740993}`)))
}

// withinDoubles keeps the length of the body, returns JSON if and only if the body is JSON,
// and changes only numbers that are out of range.
func FuzzWithinDoubles(f *testing.F) {
	for _, seed := range []string{
		`{` + exactNumbers + `}`, `[1e400,-1e400,` + strings.Repeat("9", 400) + `]`, `"\\",1e400`, `[01e999,-,1e999.5,.1e999]`, `"1e400`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		before := string(body)
		got := withinDoubles(body)
		require.Equal(t, before, string(body), "it is changed in place")
		require.Len(t, got, len(body))
		require.Equal(t, json.Valid(body), json.Valid(got))
		var value any
		if json.Valid(body) {
			require.NoError(t, json.Unmarshal(got, &value))
			if json.Unmarshal(body, &value) == nil {
				require.Equal(t, before, string(got))
			}
		}
		_, err := proto.Marshal(bodyToProto(body))
		require.NoError(t, err)
	})
}
