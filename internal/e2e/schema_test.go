package e2e

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/mig-controller/mig-controller/gen/go/miglet/commands"
	"github.com/mig-controller/mig-controller/gen/go/miglet/commands/commandsconnect"
)

// frozen is the agents' contract, field by field. It is never edited: agents in the field
// depend on it.
var frozen = map[string]string{
	"MIGletMessage": `connect=1 ConnectRequest oneof message, command_ack=2 CommandAck oneof message,
		event=3 EventNotification oneof message, heartbeat=4 Heartbeat oneof message,
		error=5 ErrorNotification oneof message`,
	"ControllerMessage": `connect_ack=1 ConnectAck oneof message, command=2 Command oneof message,
		error=3 ErrorNotification oneof message`,
	"ConnectRequest": `vm_id=1 string, pool_id=2 string, org_id=3 string, version=4 string`,
	"ConnectAck":     `accepted=1 bool, message=2 string, server_version=3 string`,
	"Command": `id=1 string, type=2 string, string_params=3 map<string string>, int_params=4 map<string int64>,
		bool_params=5 map<string bool>, string_array_params=6 repeated string, created_at=7 int64`,
	"CommandAck": `command_id=1 string, success=2 bool, message=3 string, result=4 map<string string>`,
	"EventNotification": `type=1 string, vm_id=2 string, pool_id=3 string, org_id=4 string,
		data=5 map<string string>, timestamp=6 int64`,
	"Heartbeat": `vm_id=1 string, pool_id=2 string, org_id=3 string, health=4 VMHealth,
		runner_state=5 RunnerState, current_job=6 JobInfo, timestamp=7 int64, miglet_state=8 string`,
	"VMHealth": `cpu_usage_percent=1 double, memory_usage_percent=2 double, disk_usage_percent=3 double,
		memory_total_bytes=4 int64, memory_used_bytes=5 int64, disk_total_bytes=6 int64, disk_used_bytes=7 int64`,
	"RunnerState": `state=1 string, configured=2 bool, runner_name=3 string, labels=4 repeated string`,
	"JobInfo": `job_id=1 string, run_id=2 string, repository=3 string, branch=4 string, commit=5 string,
		status=6 string, started_at=7 int64`,
	"ErrorNotification": `code=1 string, message=2 string, details=3 map<string string>, timestamp=4 int64`,
}

// TestFrozenSchema defends every name, number and type that agents in the field use.
func TestFrozenSchema(t *testing.T) {
	t.Parallel()
	file := commands.File_miglet_commands_commands_proto
	require.Equal(t, protoreflect.Proto3, file.Syntax())
	require.Equal(t, protoreflect.FullName("miglet.commands"), file.Package())
	require.Equal(t, len(frozen), file.Messages().Len())
	for name, want := range frozen {
		m := file.Messages().ByName(protoreflect.Name(name))
		require.NotNil(t, m, name)
		require.Equal(t, strings.Join(strings.Fields(want), " "), describeFields(m), name)
	}
}

// TestFrozenMethod defends the name and form of the method that agents call.
func TestFrozenMethod(t *testing.T) {
	t.Parallel()
	service := commands.File_miglet_commands_commands_proto.Services().ByName("CommandService")
	require.NotNil(t, service)
	require.Equal(t, 1, service.Methods().Len())
	m := service.Methods().ByName("StreamCommands")
	require.NotNil(t, m)
	require.True(t, m.IsStreamingClient())
	require.True(t, m.IsStreamingServer())
	require.Equal(t, protoreflect.Name("MIGletMessage"), m.Input().Name())
	require.Equal(t, protoreflect.Name("ControllerMessage"), m.Output().Name())
	require.Equal(t, "/miglet.commands.CommandService/StreamCommands", fmt.Sprintf("/%s/%s", service.FullName(), m.Name()))
	require.Equal(t, streamMethod, commandsconnect.CommandServiceStreamCommandsProcedure)
}

func describeFields(m protoreflect.MessageDescriptor) string {
	var all []string
	for i := range m.Fields().Len() {
		f := m.Fields().Get(i)
		typ := kindOf(f)
		switch {
		case f.IsMap():
			typ = fmt.Sprintf("map<%s %s>", kindOf(f.MapKey()), kindOf(f.MapValue()))
		case f.IsList():
			typ = "repeated " + typ
		case f.ContainingOneof() != nil:
			typ += fmt.Sprintf(" oneof %s", f.ContainingOneof().Name())
		}
		all = append(all, fmt.Sprintf("%s=%d %s", f.Name(), f.Number(), typ))
	}
	return strings.Join(all, ", ")
}

func kindOf(f protoreflect.FieldDescriptor) string {
	if f.Kind() == protoreflect.MessageKind {
		return string(f.Message().Name())
	}
	return f.Kind().String()
}
