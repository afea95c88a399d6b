package fleet

import (
	"encoding/json"
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestIDs checks that nothing which could be a path, a query or a second log line is
// accepted as an id.
func TestIDs(t *testing.T) {
	t.Parallel()
	for _, id := range []string{"a", "0", "vm-1.example_2", strings.Repeat("x", 128)} {
		require.NoError(t, CheckID("vm_id", id), id)
		require.NoError(t, CheckOptionalID("pool_id", id), id)
	}
	for _, id := range []string{
		"", ".", "..", "_state", "-a", "a/b", `a\b`, "a b", "a\n", "a\x00", "ä", "a%2f", "a'", strings.Repeat("x", 129),
	} {
		err := CheckID("vm_id", id)
		var fe *FieldError
		require.ErrorAs(t, err, &fe, "%q", id)
		require.Equal(t, "vm_id", fe.Field)
		if len(id) > 2 {
			require.NotContains(t, err.Error(), id, "the error omits the value")
		}
	}
	require.NoError(t, CheckOptionalID("pool_id", ""))
	require.ErrorContains(t, CheckOptionalID("pool_id", "/"), "or empty")
	_, err := ParseVMID("a/b")
	require.Error(t, err)
	first, second := NewCommandID(), NewCommandID()
	require.NotEqual(t, first, second)
	require.NoError(t, CheckID("command.id", string(NewCommandID())))
}

var idPattern = regexp.MustCompile(`\A[A-Za-z0-9][A-Za-z0-9._-]{0,127}\z`)

// FuzzID compares the hand-written check with the rule as a pattern.
func FuzzID(f *testing.F) {
	for _, s := range []string{"vm-1", "", ".", "a/b", "a\n"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		require.Equal(t, idPattern.MatchString(s), CheckID("vm_id", s) == nil)
	})
}

func TestAccept(t *testing.T) {
	t.Parallel()
	defaults := CommandDefaults{time.Hour, time.Minute, 7}
	c, err := CommandRequest{VM: "vm", Type: "drain"}.Accept(defaults, t0)
	require.NoError(t, err)
	require.NotEmpty(t, c.ID)
	require.Equal(t, t0, c.CreatedAt)
	require.Equal(t, t0.Add(time.Hour), c.ExpiresAt)
	require.Equal(t, time.Minute, c.AckTimeout)
	require.Equal(t, 7, c.MaxDeliveries)

	many := map[string]string{}
	for i := range MaxParams + 1 {
		many[strings.Repeat("k", i+1)] = ""
	}
	for field, r := range map[string]CommandRequest{
		"vm_id":                       {VM: "../x", Type: "drain"},
		"command.type":                {VM: "vm", Type: ""},
		"command.id":                  {VM: "vm", Type: "drain", ID: "a b"},
		"command.created_at":          {VM: "vm", Type: "drain", CreatedAt: 1 << 60},
		"ttl":                         {VM: "vm", Type: "drain", TTL: -1},
		"ack_timeout":                 {VM: "vm", Type: "drain", AckTimeout: MaxAckTimeout + 1},
		"max_deliveries":              {VM: "vm", Type: "drain", MaxDeliveries: MaxDeliveriesLimit + 1},
		"command.string_params":       {VM: "vm", Type: "drain", Params: Params{Strings: many}},
		"command.int_params":          {VM: "vm", Type: "drain", Params: Params{Ints: map[string]int64{"": 1}}},
		"command.bool_params":         {VM: "vm", Type: "drain", Params: Params{Bools: map[string]bool{"\xff": true}}},
		"command.string_array_params": {VM: "vm", Type: "drain", Params: Params{List: make([]string, MaxParams+1)}},
		"command.string_params[registration_token]": {VM: "vm", Type: RegisterRunner, Params: Params{Strings: map[string]string{RegistrationTokenParam: "x"}}},
	} {
		_, err := r.Accept(defaults, t0)
		var fe *FieldError
		require.ErrorAs(t, err, &fe, field)
		require.Equal(t, field, fe.Field)
	}
	long := CommandRequest{VM: "vm", Type: "drain", Params: Params{Strings: map[string]string{"k": strings.Repeat("x", MaxParamLength+1)}}}
	_, err = long.Accept(defaults, t0)
	require.ErrorContains(t, err, "command.string_params must have texts of at most 16384 bytes")
	long.Params = Params{List: []string{strings.Repeat("x", MaxParamLength+1)}}
	_, err = long.Accept(defaults, t0)
	require.ErrorContains(t, err, "command.string_array_params")
}

func TestSameRequest(t *testing.T) {
	t.Parallel()
	base := Command{VM: "vm", Type: "drain", Params: Params{Strings: map[string]string{"a": "b"}, List: []string{"x"}}}
	same := base
	same.Params = Params{Strings: maps.Clone(base.Params.Strings), Ints: map[string]int64{}, List: []string{"x"}}
	require.True(t, base.SameRequest(same))
	for _, change := range []func(*Command){
		func(c *Command) { c.VM = "vm2" },
		func(c *Command) { c.Type = "shutdown" },
		func(c *Command) { c.Params.Strings = map[string]string{"a": "c"} },
		func(c *Command) { c.Params.Ints = map[string]int64{"n": 1} },
		func(c *Command) { c.Params.Bools = map[string]bool{"b": false} },
		func(c *Command) { c.Params.List = nil },
	} {
		other := base
		change(&other)
		require.False(t, base.SameRequest(other))
	}
}

func TestAgentTime(t *testing.T) {
	t.Parallel()
	for _, s := range []int64{0, -1, 1 << 62, maxUnixSeconds + 1} {
		require.True(t, AgentTime(s).IsZero())
	}
	last := AgentTime(maxUnixSeconds)
	require.Equal(t, 9999, last.Year())
	_, err := json.Marshal(last)
	require.NoError(t, err)
}

func TestDiffers(t *testing.T) {
	t.Parallel()
	v := NewVM("vm", t0)
	w := v.ApplyHeartbeat(Heartbeat{Origin: Origin{VM: "vm", ReceivedAt: t0.Add(time.Second)}, Health: &Health{}}, false)
	require.False(t, w.Differs(v), "a heartbeat alone is not a change")
	x := w.ApplyHeartbeat(Heartbeat{Origin: Origin{VM: "vm", ReceivedAt: t0.Add(time.Second)}, Status: "idle"}, false)
	require.True(t, x.Differs(w))
	y := x.ApplyHeartbeat(Heartbeat{Origin: Origin{VM: "vm", Pool: "p", Org: "o"}}, false)
	require.True(t, y.Differs(x))
}

// Every field except the load makes a difference, including fields that are added later: an
// undetected change would never be written.
func TestDiffersInEveryField(t *testing.T) {
	t.Parallel()
	full := func() VM {
		return VM{Runner: &Runner{Labels: []string{"x"}}, Job: &Job{}, Health: &Health{}, Machine: &Machine{}}
	}
	require.False(t, full().Differs(full()), "equal by value")
	load := []string{
		"Health", "LastSeenAt", "LastHeartbeatAt", "LastAckAt", "HeartbeatSentAt", "HeartbeatInterval", "DueAt", "TokenWait.RetryAt",
		"Registration.CheckAt", "Registration.GraceUntil", "Registration.ProbeAt",
	}
	var try func(path string, of func(*VM) reflect.Value)
	try = func(path string, of func(*VM) reflect.Value) {
		v := full()
		switch f := of(&v); f.Kind() {
		case reflect.Struct:
			if at, ok := reflect.TypeAssert[*time.Time](f.Addr()); ok {
				*at = t0
				break
			}
			for i := range f.NumField() {
				try(path+"."+f.Type().Field(i).Name, func(v *VM) reflect.Value { return of(v).Field(i) })
			}
			return
		case reflect.Pointer:
			if !slices.Contains(load, path[1:]) {
				try(path, func(v *VM) reflect.Value { return of(v).Elem() })
			}
			f.SetZero()
		case reflect.String:
			f.SetString("other")
		case reflect.Int64:
			f.SetInt(7)
		case reflect.Bool:
			f.SetBool(true)
		case reflect.Slice:
			f.Index(0).SetString("other")
		default:
			t.Fatalf("%s has a kind that this test does not support", path)
		}
		require.Equal(t, !slices.Contains(load, path[1:]), v.Differs(full()), path)
	}
	try("", func(v *VM) reflect.Value { return reflect.ValueOf(v).Elem() })
}

func TestReportChecks(t *testing.T) {
	t.Parallel()
	ok := Origin{VM: "vm"}
	require.NoError(t, Event{Origin: ok, Type: "vm_started"}.Check())
	require.NoError(t, Heartbeat{Origin: ok}.Check())
	require.NoError(t, Hello{VM: "vm"}.Check())
	for field, err := range map[string]error{
		"type":         Event{Origin: ok, Type: "../x"}.Check(),
		"vm_id":        Event{Type: "a"}.Check(),
		"pool_id":      Heartbeat{Origin: Origin{VM: "vm", Pool: "/"}}.Check(),
		"org_id":       Hello{VM: "vm", Org: " "}.Check(),
		"miglet_state": Heartbeat{Origin: ok, Status: "a\nb"}.Check(),
	} {
		var fe *FieldError
		require.ErrorAs(t, err, &fe, field)
		require.Equal(t, field, fe.Field)
	}
	require.Error(t, Hello{VM: "", Pool: "p"}.Check())
}
