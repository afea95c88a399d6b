package apidoc

import (
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"strings"
)

// call is a call that docs/api.md shows. Calls are made in the order of the
// page, of one controller with three simulated agents.
type call struct {
	// says is the sentence before the call.
	says string
	// rpc is the method, and vm what stands for {vm_id} when it is called by its
	// HTTP route.
	rpc, vm string
	// in is the method that the call is shown with, if that is another one.
	in string
	// body is what is sent. {name} in it is a value that an earlier call has kept.
	body   string
	status int
	// until is in the answer once what the call shows has come about; empty for
	// what needs no time.
	until string
	// keep is a member of the answer that later calls use by its name.
	keep string
}

var calls = []call{
	{rpc: "SendCommand", says: "Tell a VM to drain, and wait for the end of it", body: `{"vmId": "sim-vm-0001", "command": {"type": "drain"}, "wait": "10s"}`, status: http.StatusOK},
	{rpc: "SendCommand", says: "A VM that was never seen, for which the command waits", body: `{"vmId": "build-0001", "command": {"id": "level-1", "type": "set_log_level", "stringParams": {"level": "debug"}}}`, status: http.StatusOK},
	{rpc: "SendCommand", says: "Another command with the same id", body: `{"vmId": "build-0001", "command": {"id": "level-1", "type": "drain"}}`, status: http.StatusConflict},
	{rpc: "SendCommand", says: "A field that breaks its rule", body: `{"vmId": "build-0001", "command": {"type": "drain now"}}`, status: http.StatusBadRequest},
	{rpc: "GetCommand", says: "Look at a command", body: `{"commandId": "level-1"}`, status: http.StatusOK},
	{rpc: "GetCommand", says: "A command that does not exist", body: `{"commandId": "level-2"}`, status: http.StatusNotFound},
	{rpc: "ListCommands", says: "What waits for a VM", body: `{"vmId": "build-0001", "states": ["COMMAND_STATE_PENDING"]}`, status: http.StatusOK},
	{rpc: "CancelCommand", says: "Take a command back", body: `{"commandId": "level-1"}`, status: http.StatusOK},
	{rpc: "GetVM", says: "Look at a VM", body: `{"vmId": "sim-vm-0001"}`, status: http.StatusOK, until: `"status":"idle"`},
	{rpc: "ListVMs", says: "The first page of the VMs that are connected", body: `{"connected": true, "pageSize": 1}`, status: http.StatusOK},
	{rpc: "ListEvents", says: "When a VM registered its runner", body: `{"vmId": "sim-vm-0001", "type": "runner_registered"}`, status: http.StatusOK},
	{rpc: "ListHeartbeats", says: "The latest heartbeat of a VM", body: `{"vmId": "sim-vm-0001", "pageSize": 1}`, status: http.StatusOK},
	{rpc: "WatchFleet", says: "Watch a VM for a second", body: `{"vmId": "build-0001"}`, status: http.StatusOK, until: `"cursor"`, keep: "cursor"},
	{rpc: "SendCommand", in: "WatchFleet", says: "Then something happens", body: `{"vmId": "build-0001", "command": {"id": "drain-1", "type": "drain"}}`, status: http.StatusOK},
	{rpc: "WatchFleet", says: "Go on where the watch ended", body: `{"vmId": "build-0001", "cursor": "{cursor}"}`, status: http.StatusOK, until: `"drain-1"`},
	{rpc: "GetServerInfo", says: "Who answers", body: `{}`, status: http.StatusOK},

	{rpc: "ReportEvent", vm: "build-0002", says: "A VM has started", body: `{"type": "vm_started", "timestamp": "2026-01-02T03:04:05Z", "pool_id": "pool-1", "machine_type": "e2-standard-4", "region": "europe-west1", "cpu": 4, "memory": 16384, "disk": 251}`, status: http.StatusOK},
	{rpc: "ReportEvent", vm: "build-0002", says: "An event of another VM", body: `{"type": "job_started", "vm_id": "build-0003"}`, status: http.StatusBadRequest},
	{rpc: "ReportEvent", says: "The same method without its route", body: `{"vmId": "build-0002", "event": {"type": "error", "message": "the disk is nearly full"}}`, status: http.StatusOK},
	{rpc: "ReportHeartbeat", vm: "build-0002", says: "A heartbeat", body: `{"type": "job_heartbeat", "miglet_state": "idle", "runner_state": "idle", "vm_health": {"cpu_load": 0.5, "memory_used": 4096, "memory_total": 16384, "disk_used": 178, "disk_total": 251}}`, status: http.StatusOK},
	{rpc: "ReportHeartbeat", says: "The same method without its route", body: `{"vmId": "build-0002", "heartbeat": {"type": "job_heartbeat", "miglet_state": "idle"}}`, status: http.StatusOK},
	{rpc: "PollCommands", vm: "build-0002", says: "Ask what there is to do", status: http.StatusOK},
	{rpc: "PollCommands", says: "The same method without its route. Nothing follows before register_runner is done", body: `{"vmId": "build-0002"}`, status: http.StatusOK},
	{rpc: "RequestRegistrationToken", vm: "build-0002", says: "Ask for a token", body: `{"runner_group": "default", "labels": ["linux"]}`, status: http.StatusOK},
	{rpc: "RequestRegistrationToken", says: "The same method without its route", body: `{"vmId": "build-0002"}`, status: http.StatusOK},
}

// section returns the method that the call is shown with.
func (c call) section() string {
	if c.in != "" {
		return c.in
	}
	return c.rpc
}

func (c call) onRoute() bool { return c.vm != "" }

var placeholder = regexp.MustCompile(`\{[a-z]+\}`)

// plain reports whether the body is the same in every run.
func (c call) plain() bool { return c.body != "" && !placeholder.MatchString(c.body) }

// command returns the call as a command of bash, with the values that earlier
// calls have kept.
func (s Schema) command(c call, kept map[string]string) string {
	body := placeholder.ReplaceAllStringFunc(c.body, func(name string) string { return kept[strings.Trim(name, "{}")] })
	m := s.method(c.rpc)
	if m.IsStreamingServer() {
		return fmt.Sprintf(watchCommand, body, pathOf(m))
	}
	path := pathOf(m)
	if c.onRoute() {
		path = strings.Replace(routeOf(c.rpc).Pattern, "{vm_id}", c.vm, 1)
	}
	command := "curl -s " + address + path
	if body != "" {
		command += " \\\n    -H 'Content-Type: application/json' \\\n    -d '" + body + "'"
	}
	return command
}

// address is where the page finds the controller.
const address = "localhost:8080"

const watchCommand = `message='%s'
printf "\0\0\0\0\\$(printf %%o ${#message})%%s" "$message" |
    curl -sN ` + address + `%s \
        -H 'Content-Type: application/connect+json' \
        -H 'Connect-Timeout-Ms: 1000' --data-binary @- |
    tr '\0' '\n' | grep -ao '{".*}'`

// Answer is what came back for a call.
type Answer struct {
	Status int
	// Text is the JSON of each message, indented.
	Text string
}

// commands returns all calls as commands of bash, as they are after the answers.
func (s Schema) commands(answers []Answer) []string {
	kept := map[string]string{}
	texts := make([]string, len(calls))
	for i, c := range calls {
		texts[i] = s.command(c, kept)
		c.keepFrom(answers[i], kept)
	}
	return texts
}

// keepFrom adds to kept what later calls need of the answer.
func (c call) keepFrom(a Answer, kept map[string]string) {
	if c.keep == "" {
		return
	}
	var message map[string]any
	if json.NewDecoder(strings.NewReader(a.Text)).Decode(&message) == nil {
		kept[c.keep], _ = message[c.keep].(string)
	}
}
