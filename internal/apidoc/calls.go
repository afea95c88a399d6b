package apidoc

import (
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"strings"
)

// call is an example call in docs/api.md. Calls are made in the order of the page, to one
// controller with three simulated agents.
type call struct {
	// title is the text before the call.
	title string
	// rpc is the method, and vm replaces {vm_id} if it is called by its HTTP route.
	rpc, vm string
	// in is the method in whose section the call is shown, if it is another one.
	in string
	// body is the request. {name} in it is replaced by a value kept from an earlier call.
	body   string
	status int
	// until is a text in the expected response; the call is repeated until then. It is empty
	// if the first response is final.
	until string
	// keep are members of the response that later calls use by these names, such as token.id.
	keep map[string]string
	// as is the name of the kept secret that the call is made with; empty for no credentials.
	as string
	// shown is what the page has in place of the secret in the response.
	shown string
}

var calls = []call{
	{rpc: "SendCommand", title: "Drain a VM, and wait for the end of the command", body: `{"vmId": "sim-vm-0001", "command": {"type": "drain"}, "wait": "10s", "reason": "kernel update"}`, status: http.StatusOK},
	{rpc: "SendCommand", title: "A VM that was never seen, for which the command waits", body: `{"vmId": "build-0001", "command": {"id": "level-1", "type": "set_log_level", "stringParams": {"level": "debug"}}}`, status: http.StatusOK},
	{rpc: "SendCommand", title: "Another command with the same id", body: `{"vmId": "build-0001", "command": {"id": "level-1", "type": "drain"}}`, status: http.StatusConflict},
	{rpc: "SendCommand", title: "A field that breaks its rule", body: `{"vmId": "build-0001", "command": {"type": "drain now"}}`, status: http.StatusBadRequest},
	{rpc: "GetCommand", title: "Look at a command", body: `{"commandId": "level-1"}`, status: http.StatusOK},
	{rpc: "GetCommand", title: "A command that does not exist", body: `{"commandId": "level-2"}`, status: http.StatusNotFound},
	{rpc: "ListCommands", title: "What waits for a VM", body: `{"vmId": "build-0001", "states": ["COMMAND_STATE_PENDING"]}`, status: http.StatusOK},
	{rpc: "CancelCommand", title: "Take a command back", body: `{"commandId": "level-1"}`, status: http.StatusOK},
	{rpc: "GetVM", title: "Look at a VM", body: `{"vmId": "sim-vm-0001"}`, status: http.StatusOK, until: `"status":"idle"`},
	{rpc: "ListVMs", title: "The first page of the VMs that are connected", body: `{"connected": true, "pageSize": 1}`, status: http.StatusOK},
	{rpc: "ListEvents", title: "When a VM registered its runner", body: `{"vmId": "sim-vm-0001", "type": "runner_registered"}`, status: http.StatusOK},
	{rpc: "ListHeartbeats", title: "The latest heartbeat of a VM", body: `{"vmId": "sim-vm-0001", "pageSize": 1}`, status: http.StatusOK},
	{rpc: "WatchFleet", title: "Watch a VM for a second", body: `{"vmId": "build-0001"}`, status: http.StatusOK, until: `"cursor"`, keep: map[string]string{"cursor": "cursor"}},
	{rpc: "SendCommand", in: "WatchFleet", title: "Then something happens", body: `{"vmId": "build-0001", "command": {"id": "drain-1", "type": "drain"}}`, status: http.StatusOK},
	{rpc: "WatchFleet", title: "Go on where the watch ended", body: `{"vmId": "build-0001", "cursor": "{cursor}"}`, status: http.StatusOK, until: `"drain-1"`},
	{rpc: "GetServerInfo", title: "Who answers", body: `{}`, status: http.StatusOK},
	{rpc: "SetLogLevel", title: "Log more for ten minutes", body: `{"level": "LOG_LEVEL_DEBUG", "duration": "600s"}`, status: http.StatusOK},

	{rpc: "ReportEvent", vm: "build-0002", title: "A VM has started", body: `{"type": "vm_started", "timestamp": "2026-01-02T03:04:05Z", "pool_id": "pool-1", "machine_type": "e2-standard-4", "region": "europe-west1", "cpu": 4, "memory": 16384, "disk": 251}`, status: http.StatusOK},
	{rpc: "ReportEvent", vm: "build-0002", title: "An event of another VM", body: `{"type": "job_started", "vm_id": "build-0003"}`, status: http.StatusBadRequest},
	{rpc: "ReportEvent", title: "The same method without its route", body: `{"vmId": "build-0002", "event": {"type": "error", "message": "the disk is nearly full"}}`, status: http.StatusOK},
	{rpc: "ReportHeartbeat", vm: "build-0002", title: "A heartbeat", body: `{"type": "job_heartbeat", "miglet_state": "idle", "runner_state": "idle", "vm_health": {"cpu_load": 0.5, "memory_used": 4096, "memory_total": 16384, "disk_used": 178, "disk_total": 251}}`, status: http.StatusOK},
	{rpc: "ReportHeartbeat", title: "The same method without its route", body: `{"vmId": "build-0002", "heartbeat": {"type": "job_heartbeat", "miglet_state": "idle"}}`, status: http.StatusOK},
	{rpc: "PollCommands", vm: "build-0002", title: "Ask what there is to do", status: http.StatusOK},
	{rpc: "PollCommands", title: "The same method without its route. Nothing follows before register_runner is done", body: `{"vmId": "build-0002"}`, status: http.StatusOK},
	{rpc: "RequestRegistrationToken", vm: "build-0002", title: "Ask for a token", body: `{"runner_group": "default", "labels": ["linux"]}`, status: http.StatusOK},
	{rpc: "RequestRegistrationToken", title: "The same method without its route", body: `{"vmId": "build-0002"}`, status: http.StatusOK},

	{rpc: "WhoAmI", title: "Who you are while nobody needs credentials", body: `{}`, status: http.StatusOK},
	{
		rpc: "CreateToken", title: "The first token. From here on, operators need credentials",
		body: `{"name": "alice", "role": "ROLE_ADMIN", "ttl": "2592000s", "reason": "on call"}`, status: http.StatusOK,
		keep: map[string]string{"admin": "secret"}, shown: "migc_EXAMPLEEXAMPLEEXAMPLEEXAMPLEALICE",
	},
	{rpc: "WhoAmI", in: "CreateToken", title: "A call without credentials", body: `{}`, status: http.StatusUnauthorized},
	{rpc: "WhoAmI", in: "CreateToken", as: "admin", title: "The same call with the token", body: `{}`, status: http.StatusOK},
	{
		rpc: "CreateToken", as: "admin", title: "A token that can only read",
		body: `{"name": "status-panel", "role": "ROLE_VIEWER"}`, status: http.StatusOK,
		keep: map[string]string{"viewer": "secret", "panel": "token.id"}, shown: "migc_EXAMPLEEXAMPLEEXAMPLEEXAMPLEPANEL",
	},
	{rpc: "SendCommand", in: "CreateToken", as: "viewer", title: "A command with this token", body: `{"vmId": "sim-vm-0001", "command": {"type": "drain"}}`, status: http.StatusForbidden},
	{rpc: "ListTokens", as: "admin", title: "The tokens that are valid", body: `{}`, status: http.StatusOK},
	{rpc: "RevokeToken", as: "admin", title: "Revoke a token", body: `{"tokenId": "{panel}", "reason": "the panel was replaced"}`, status: http.StatusOK},
	{rpc: "ListAuditEvents", as: "admin", title: "Who drained a VM, and why", body: `{"vmId": "sim-vm-0001", "action": "AdminService/SendCommand"}`, status: http.StatusOK},
}

// section returns the method in whose section the call is shown.
func (c call) section() string {
	if c.in != "" {
		return c.in
	}
	return c.rpc
}

func (c call) onRoute() bool { return c.vm != "" }

var placeholder = regexp.MustCompile(`\{[a-z]+\}`)

// plain reports whether the body is constant.
func (c call) plain() bool { return c.body != "" && !placeholder.MatchString(c.body) }

// command returns the call as a bash command, with the values kept from earlier calls.
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
	if c.as != "" {
		command += " \\\n    -H 'Authorization: Bearer " + kept[c.as] + "'"
	}
	if body != "" {
		command += " \\\n    -H 'Content-Type: application/json' \\\n    -d '" + body + "'"
	}
	return command
}

// address is the address of the controller in the page.
const address = "localhost:8080"

const watchCommand = `message='%s'
printf "\0\0\0\0\\$(printf %%o ${#message})%%s" "$message" |
    curl -sN ` + address + `%s \
        -H 'Content-Type: application/connect+json' \
        -H 'Connect-Timeout-Ms: 1000' --data-binary @- |
    tr '\0' '\n' | grep -ao '{".*}'`

// Answer is the response to a call.
type Answer struct {
	Status int
	// Text is the JSON of each message, indented.
	Text string
}

// commands returns all calls as bash commands, with values kept from the answers.
func (s Schema) commands(answers []Answer) []string {
	kept := map[string]string{}
	texts := make([]string, len(calls))
	for i, c := range calls {
		texts[i] = s.command(c, kept)
		c.keepFrom(answers[i], kept)
	}
	return texts
}

// keepFrom adds to kept the values of the answer that later calls need.
func (c call) keepFrom(a Answer, kept map[string]string) {
	for name, path := range c.keep {
		kept[name] = a.text(path)
	}
}

// text returns the text at the path in the first message, such as token.id; empty if there is
// none.
func (a Answer) text(path string) string {
	var value any
	if json.NewDecoder(strings.NewReader(a.Text)).Decode(&value) != nil {
		return ""
	}
	for name := range strings.SplitSeq(path, ".") {
		message, _ := value.(map[string]any)
		value = message[name]
	}
	text, _ := value.(string)
	return text
}
