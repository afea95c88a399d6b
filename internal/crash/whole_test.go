package crash

import (
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	migcontrollerv1 "github.com/mig-controller/mig-controller/gen/go/migcontroller/v1"
)

// requireWhole fails if the changes from the beginning do not add up to the state that the
// controller reports, or contain an impossible step.
func requireWhole(t *testing.T, c *controller, changes []*change, events []*migcontrollerv1.Event) {
	t.Helper()
	epochs := map[string]int64{}
	records := map[string]*migcontrollerv1.CommandRecord{}
	var watched []*migcontrollerv1.Event
	for _, step := range changes {
		switch {
		case step.GetVm() != nil:
			vm := step.GetVm()
			require.GreaterOrEqual(t, vm.GetSessionEpoch(), epochs[vm.GetVmId()], "VM %s", vm.GetVmId())
			epochs[vm.GetVmId()] = vm.GetSessionEpoch()
		case step.GetCommand() != nil:
			now := step.GetCommand()
			before := records[now.GetCommand().GetId()]
			if before.GetFinishedAt() != nil {
				require.Equal(t, before.GetState(), now.GetState(), "command %s", now.GetCommand().GetId())
			}
			// A delivery that was not written in full does not count.
			require.GreaterOrEqual(t, now.GetAttempts(), before.GetAttempts()-1, "command %s", now.GetCommand().GetId())
			records[now.GetCommand().GetId()] = now
		case step.GetEvent() != nil:
			watched = append(watched, step.GetEvent())
		}
	}
	require.Equal(t, numbers(events), numbers(watched), "every event has a change, and every change's event exists")
	for i := range watched {
		require.True(t, proto.Equal(watched[i], events[i]), "watched: %v\nlisted: %v", watched[i], events[i])
	}
	for id, vm := range c.vms(t) {
		require.Equal(t, epochs[id], vm.GetSessionEpoch(), "VM %s", id)
		require.False(t, vm.GetConnected(), "VM %s", id)
	}
	listed := c.commands(t, &migcontrollerv1.ListCommandsRequest{})
	require.Equal(t, slices.Sorted(maps.Keys(records)), slices.Sorted(slices.Values(ids(listed))), "every command has a change, and exists")
	for _, now := range listed {
		watched := records[now.GetCommand().GetId()]
		require.Equal(t, watched.GetState(), now.GetState(), "command %s", now.GetCommand().GetId())
		require.Equal(t, watched.GetAttempts(), now.GetAttempts(), "command %s", now.GetCommand().GetId())
	}
}

// requireFiles fails unless every event has a file, and there are no others.
func requireFiles(t *testing.T, c *controller, dir string) {
	t.Helper()
	want := map[string]string{}
	for _, e := range c.events(t, "") {
		name := "event-" + e.GetType() + "-" + e.GetReceivedAt().AsTime().Format("20060102T150405.000000000Z") + ".json"
		if e.GetSource() == migcontrollerv1.ReportSource_REPORT_SOURCE_STREAM {
			name = "grpc-" + name
		}
		want[filepath.Join(e.GetVmId(), name)] = mark(e)
	}
	var found []string
	eventually(t, func() bool {
		found = eventFiles(t, dir)
		return len(found) >= len(want)
	}, "%d events get fewer files", len(want))
	require.Equal(t, slices.Sorted(maps.Keys(want)), slices.Sorted(slices.Values(found)), "every event has a file")
	for _, name := range found {
		text, err := os.ReadFile(filepath.Join(dir, name))
		require.NoError(t, err)
		var body struct {
			Data struct {
				Mark string `json:"mark"`
			} `json:"data"`
		}
		require.NoError(t, json.Unmarshal(text, &body), name)
		require.Equal(t, want[name], body.Data.Mark, name)
	}
}

// eventFiles returns the names of the event files below dir.
func eventFiles(t *testing.T, dir string) []string {
	t.Helper()
	var names []string
	for _, pattern := range []string{"*/event-*.json", "*/grpc-event-*.json"} {
		paths, err := filepath.Glob(filepath.Join(dir, pattern))
		require.NoError(t, err)
		for _, path := range paths {
			names = append(names, strings.TrimPrefix(path, dir+string(filepath.Separator)))
		}
	}
	return names
}

// numbers returns the numbers that the controller assigned to the events.
func numbers(events []*migcontrollerv1.Event) []int64 {
	var all []int64
	for _, e := range events {
		all = append(all, e.GetEventId())
	}
	return all
}

// mark returns the text that identifies an event; empty for one of a simulated agent.
func mark(e *migcontrollerv1.Event) string {
	return e.GetBody().GetFields()["data"].GetStructValue().GetFields()["mark"].GetStringValue()
}

// marks returns those of all events.
func marks(events []*migcontrollerv1.Event) []string {
	var all []string
	for _, e := range events {
		all = append(all, mark(e))
	}
	return all
}
