package journal

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/internal/fleet"
)

// People's scripts rely on the file names.
func TestNamesAreAsPromised(t *testing.T) {
	t.Parallel()
	const stamp = "20260102T150405.123456789Z"
	stream, overHTTP := origin("vm-1", fleet.Stream, 0), origin("vm-1", fleet.HTTP, 0)
	for name, got := range map[string]string{
		"grpc-event-vm_started-" + stamp + ".json": eventName(fleet.Event{Origin: stream, Type: "vm_started"}),
		"event-vm_started-" + stamp + ".json":      eventName(fleet.Event{Origin: overHTTP, Type: "vm_started"}),
		"grpc-heartbeat-" + stamp + ".json":        heartbeatName(stream),
		"heartbeat-" + stamp + ".json":             heartbeatName(overHTTP),
	} {
		require.Equal(t, name, got)
		at, ok := parseName(got)
		require.True(t, ok, got)
		require.Equal(t, start, at)
	}
}

// A local time gives the same instant in the name, and names sort by time, even where the
// nanoseconds end in zeros.
func TestNamesSortByTime(t *testing.T) {
	t.Parallel()
	whole := time.Date(2026, 1, 2, 15, 4, 5, 0, time.UTC)
	east := time.FixedZone("east", 3*3600)
	last := ""
	for _, at := range []time.Time{
		whole.Add(-1), whole, whole.Add(1).In(east), whole.Add(100), whole.Add(time.Millisecond), whole.Add(time.Hour).In(east),
	} {
		name := heartbeatName(fleet.Origin{Via: fleet.HTTP, ReceivedAt: at})
		require.Less(t, last, name)
		last = name
	}
	require.Equal(t, "heartbeat-20260102T160405.000000000Z.json", last)
}

// The longest ids yield names that file systems accept.
func TestLongestNamesFit(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", fleet.MaxIDLength)
	e := fleet.Event{Origin: origin(fleet.VMID(long), fleet.Stream, 0), Type: long}
	require.LessOrEqual(t, len(tempName(eventName(e), "18446744073709551615")), 255)
	j := open(t, Options{})
	n, err := j.WriteEvents(t.Context(), []fleet.Event{e})
	require.NoError(t, err)
	require.Equal(t, 1, n)
}

// Prune relies on names: those of other files must not be mistaken for the journal's.
func TestForeignNamesAreNotTaken(t *testing.T) {
	t.Parallel()
	const stamp = "20260102T150405.123456789Z"
	for _, name := range []string{
		"", ".json", "x.json", stamp + ".json", "-" + stamp + ".json",
		"heartbeat" + stamp + ".json", "heartbeat-" + stamp, "heartbeat-" + stamp + ".JSON",
		"Heartbeat-" + stamp + ".json", "heartbeat-x-" + stamp + ".json",
		"event-" + stamp + ".json", "event--" + stamp + ".json", "event-_x-" + stamp + ".json",
		"event-a b-" + stamp + ".json", "grpc-grpc-heartbeat-" + stamp + ".json",
		"event-" + strings.Repeat("x", 129) + "-" + stamp + ".json",
		"heartbeat-20261302T150405.123456789Z.json", "heartbeat-20260102T150405,123456789Z.json",
		"heartbeat-20260230T150405.123456789Z.json",
	} {
		_, ok := parseName(name)
		require.False(t, ok, name)
		require.False(t, isTemp(tempName(name, "1")), name)
	}
	ours := "heartbeat-" + stamp + ".json"
	for _, name := range []string{
		"", ".", "." + ours, ours, ours + ".1.tmp", "." + ours + ".tmp", "." + ours + "..tmp",
		"." + ours + ".x.tmp", "." + ours + ".-1.tmp", "." + ours + ".1", "..1.tmp",
	} {
		require.False(t, isTemp(name), name)
	}
	require.True(t, isTemp(tempName(ours, "18446744073709551615")))
}

// Whatever is in a directory, only names that the journal creates are recognized as the
// journal's.
func FuzzParseName(f *testing.F) {
	f.Add("grpc-event-vm_started-20260102T150405.123456789Z.json")
	f.Add("heartbeat-20260102T150405.123456789Z.json")
	f.Add("event-event-x-20260102T150405.000000000Z.json")
	f.Fuzz(func(t *testing.T, name string) {
		at, ok := parseName(name)
		if !ok {
			return
		}
		via, rest := fleet.HTTP, name
		if after, stream := strings.CutPrefix(name, "grpc-"); stream {
			via, rest = fleet.Stream, after
		}
		o := fleet.Origin{Via: via, ReceivedAt: at}
		if strings.HasPrefix(rest, "heartbeat-") {
			require.Equal(t, name, heartbeatName(o))
			return
		}
		typ := rest[len("event-") : len(rest)-len("-20260102T150405.000000000Z.json")]
		require.NoError(t, fleet.CheckID("type", typ))
		require.Equal(t, name, eventName(fleet.Event{Origin: o, Type: typ}))
	})
}
