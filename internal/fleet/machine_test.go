package fleet

import (
	"encoding/json"
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// startedWith is a vm_started with these members: texts of data on the stream.
func startedWith(via Route, members string) Event {
	body := fmt.Sprintf(`{"type":"vm_started",%s}`, members)
	if via == Stream {
		body = fmt.Sprintf(`{"type":"vm_started","data":{%s}}`, members)
	}
	return Event{Origin: Origin{VM: "vm", Via: via, ReceivedAt: t1, SentAt: t1}, Type: EventVMStarted, Body: json.RawMessage(body)}
}

// The machine data of a vm_started is kept on either route. Malformed members are omitted;
// they never cause the event to be rejected.
func TestMachineOf(t *testing.T) {
	t.Parallel()
	full := Machine{Type: "e2-standard-4", Region: "europe-west1", CPU: 4, MemoryBytes: 16 << 30, DiskBytes: 251 << 30}
	for name, test := range map[string]struct {
		via     Route
		members string
		want    Machine
	}{
		"numbers":         {HTTP, `"machine_type":"e2-standard-4","region":"europe-west1","cpu":4,"memory":16384,"disk":251`, full},
		"texts":           {Stream, `"machine_type":"e2-standard-4","region":"europe-west1","cpu":"4","memory":"16384","disk":"251"`, full},
		"texts over HTTP": {HTTP, `"machine_type":"e2-standard-4","region":"europe-west1","cpu":"4","memory":"16384","disk":"251"`, full},
		"fractions":       {HTTP, `"cpu":2.5,"memory":0.3,"disk":1.5`, Machine{CPU: 2, MemoryBytes: 314572, DiskBytes: 3 << 29}},
		"exponents":       {HTTP, `"memory":1e3`, Machine{MemoryBytes: 1000 << 20}},
		"other types":     {HTTP, `"machine_type":4,"region":["r"],"cpu":{},"memory":true,"disk":null`, Machine{}},
		"no numbers":      {Stream, `"cpu":"four","memory":"NaN","disk":"+Inf"`, Machine{}},
		"below range":     {Stream, `"cpu":"0","memory":"-1","disk":"-1e300"`, Machine{}},
		"above range":     {HTTP, fmt.Sprintf(`"cpu":%d,"memory":8796093022208,"disk":1e999`, math.MaxInt32), Machine{}},
		"long names":      {HTTP, fmt.Sprintf(`"region":"r","machine_type":%q`, strings.Repeat("m", 129)), Machine{Region: "r"}},
		"one is wrong":    {HTTP, `"machine_type":"m1","cpu":"many","memory":1`, Machine{Type: "m1", MemoryBytes: 1 << 20}},
		"nothing of it":   {Stream, `"version":"1"`, Machine{}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			require.Equal(t, test.want, machineOf(startedWith(test.via, test.members)))
		})
	}
	for _, body := range []string{``, `null`, `7`, `{`, `{"data":null}`, `{"data":"x"}`, `{"data":[{"cpu":1}]}`} {
		for _, via := range []Route{Stream, HTTP} {
			require.Zero(t, machineOf(Event{Origin: Origin{Via: via}, Body: json.RawMessage(body)}), body)
		}
	}
}

// The machine data is kept until another vm_started replaces it, through unannounced boots,
// and a change is visible to watchers.
func TestVMStartedDescribesTheMachine(t *testing.T) {
	t.Parallel()
	rules := Rules{NewID: NewRegistrationID}
	take := func(s State, in Input) State {
		out, err := rules.Reduce(s, in, t1)
		require.NoError(t, err)
		return out.State
	}
	unknown := stateOf(liveVM())
	s := take(unknown, EventReceived{startedWith(HTTP, `"machine_type":"m1","cpu":2`)})
	first := Machine{Type: "m1", CPU: 2}
	require.Equal(t, &first, s.VM.Machine)

	rebooted := s.VM.reboot(t1, t1)
	require.Equal(t, &first, rebooted.Machine)
	s = take(s, EventReceived{startedWith(HTTP, `"version":"2"`)})
	require.Equal(t, &first, s.VM.Machine, "it has no machine data")

	again := take(s, EventReceived{startedWith(HTTP, `"machine_type":"m1","cpu":2`)})
	require.False(t, again.VM.Differs(s.VM), "a repetition")
	other := take(s, EventReceived{startedWith(HTTP, `"machine_type":"m2"`)})
	require.Equal(t, &Machine{Type: "m2"}, other.VM.Machine, "all members are replaced")
	require.True(t, other.VM.Differs(s.VM))

	stale := startedWith(Stream, `"machine_type":"m3"`)
	stale.Epoch = s.VM.Epoch - 1
	require.Equal(t, &first, take(s, EventReceived{stale}).VM.Machine, "from a superseded session")
}

// FuzzMachineOf looks for an event that yields an impossible machine.
func FuzzMachineOf(f *testing.F) {
	f.Add(`{"cpu":4,"memory":"1","data":{"disk":"9e99"}}`)
	f.Add(`{"data":{"cpu":"2147483648","memory":"8796093022207.9999"}}`)
	f.Fuzz(func(t *testing.T, body string) {
		for _, via := range []Route{Stream, HTTP} {
			m := machineOf(Event{Origin: Origin{Via: via}, Body: json.RawMessage(body)})
			require.True(t, m.CPU >= 0 && m.CPU < math.MaxInt32 && m.MemoryBytes >= 0 && m.DiskBytes >= 0, "%+v", m)
			require.True(t, len(m.Type) <= MaxIDLength && len(m.Region) <= MaxIDLength, "%+v", m)
		}
	})
}
