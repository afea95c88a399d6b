package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	"connectrpc.com/connect"
	"github.com/alecthomas/kong"

	"github.com/mig-controller/mig-controller/gen/go/migclient"
	migcontrollerv1 "github.com/mig-controller/mig-controller/gen/go/migcontroller/v1"
)

// The statuses that migctl exits with; helpFoot says what each means.
const (
	exitOK          = 0
	exitFailed      = 1
	exitUsage       = 2
	exitNotFound    = 3
	exitUnavailable = 4
	exitNotEnded    = 5
	exitNotAllowed  = 6
	exitInterrupted = 130
)

// lateHint is what to try when no answer came in time.
const lateHint = "Check --address, or allow more time with --timeout."

// failure is an error with the exit status and what to try next.
type failure struct {
	code int
	text string
	// reported is set when everything has been printed already.
	reported bool
	// hint is empty when there is nothing to try.
	hint string
	// status and detail are those of the controller's answer; empty and nil if there was
	// none.
	status string
	detail *migcontrollerv1.ErrorDetail
}

// Error says what went wrong.
func (f *failure) Error() string { return f.text }

// usage returns the error of an argument that violates a rule.
func usage(format string, args ...any) error {
	return &failure{code: exitUsage, text: fmt.Sprintf(format, args...), hint: usageHint}
}

// usageHint is replaced by a hint that names the command, if there is one.
const usageHint = "See migctl help, or migctl help COMMAND."

// helpHint says where the help of this command line is.
func (in *invocation) helpHint() string {
	if in.node == nil || in.node.Parent == nil {
		return usageHint
	}
	return fmt.Sprintf("See migctl help %s.", strings.TrimPrefix(in.node.FullPath(), "migctl "))
}

// misread returns the error of a command line that kong could not parse, and sets the
// command that it is of.
func (in *invocation) misread(err error) error {
	if parsing, ok := errors.AsType[*kong.ParseError](err); ok && parsing.Context != nil {
		in.node = parsing.Context.Selected()
	}
	if missing, found := strings.CutPrefix(err.Error(), `expected "<`); found {
		return usage("missing argument: <%s", strings.TrimSuffix(missing, `"`))
	}
	return usage("%v", err)
}

// silent is the error of an outcome that has already been reported.
func silent(code int) error { return &failure{code: code, reported: true} }

// absent is an error about something that may not exist, with the place to look
// for it.
type absent struct {
	error
	hint string
}

// Unwrap returns what happened.
func (a absent) Unwrap() error { return a.error }

// report prints the error, unless it is nil, and returns the status to exit with.
func (in *invocation) report(err error) int {
	if err == nil {
		return exitOK
	}
	f := in.explain(err)
	if !f.reported {
		in.show("", f)
	}
	return f.code
}

// show prints a failure to stderr: of migctl as a whole, or of one of many that
// has a name. For programs that is one line of JSON or one document of YAML.
func (in *invocation) show(name string, f *failure) {
	if in.structured() {
		in.showProgram(name, f)
		return
	}
	if name != "" {
		fmt.Fprintf(in.stderr, "%s: %s\n", printable(name), printable(f.text))
		return
	}
	fmt.Fprintf(in.stderr, "migctl: %s\n", printable(f.text))
	for line := range strings.Lines(f.hint) {
		fmt.Fprintf(in.stderr, "  %s\n", printable(strings.TrimSpace(line)))
	}
}

func (in *invocation) showProgram(name string, f *failure) {
	type document struct {
		Name       string `json:"name,omitempty"`
		Message    string `json:"message"`
		Hint       string `json:"hint,omitempty"`
		Code       string `json:"code,omitempty"`
		Reason     string `json:"reason,omitempty"`
		Field      string `json:"field,omitempty"`
		Rule       string `json:"rule,omitempty"`
		ExitStatus int    `json:"exitStatus"`
	}
	out := document{
		Name: name, Message: f.text, Hint: strings.Join(strings.Fields(f.hint), " "), Code: f.status,
		Field: f.detail.GetField(), Rule: f.detail.GetRule(), ExitStatus: f.code,
	}
	if f.detail.GetReason() != migcontrollerv1.ErrorReason_ERROR_REASON_UNSPECIFIED {
		out.Reason = f.detail.GetReason().String()
	}
	text, err := json.Marshal(map[string]document{"error": out})
	text = escapeJSON(text)
	if err == nil && in.Output == outYAML {
		text, err = jsonToYAML(text)
		text = append([]byte("---\n"), text...)
	}
	if err != nil {
		panic(fmt.Sprintf("texts and numbers are not a document: %v", err))
	}
	fmt.Fprintln(in.stderr, strings.TrimSpace(string(text)))
}

// explain returns what is printed for an error.
func (in *invocation) explain(err error) *failure {
	if f, ok := errors.AsType[*failure](err); ok {
		if f.hint == usageHint {
			f.hint = in.helpHint()
		}
		return f
	}
	answer, ok := errors.AsType[*connect.Error](err)
	switch {
	case !ok:
		return &failure{code: exitFailed, text: err.Error()}
	case answer.Code() == connect.CodeUnauthenticated || answer.Code() == connect.CodePermissionDenied:
		return &failure{
			code: exitNotAllowed, text: fmt.Sprintf("%s denied access: %s", in.address, messageOf(answer)), status: answer.Code().String(),
			hint: "Provide a token with --token-file, MIGCTL_TOKEN or a context; migctl config view\n  shows what the contexts contain.",
		}
	case connect.IsWireError(err) && !foreign(answer):
		return in.refused(err, answer)
	default:
		return in.unreached(err, answer)
	}
}

// messageOf returns the message of an error; a proxy in front of the controller may send
// only a status.
func messageOf(answer *connect.Error) string {
	return cmp.Or(answer.Message(), "it answered "+answer.Code().String()+" without a message")
}

// foreign reports whether an answer is not from a controller's AdminService, but from a
// gateway or another path of the controller. AdminService sends a message with every
// error, and a detail when something does not exist.
func foreign(answer *connect.Error) bool {
	elsewhere := answer.Code() == connect.CodeUnimplemented && answer.Message() == "there is nothing at this path"
	return elsewhere || answer.Message() == "" || answer.Code() == connect.CodeNotFound && migclient.ErrorDetail(answer) == nil
}

// unreached returns what is printed when no controller has answered.
func (in *invocation) unreached(err error, answer *connect.Error) *failure {
	f := &failure{code: exitUnavailable}
	hint := distrust(err)
	switch {
	case answer.Code() == connect.CodeDeadlineExceeded || errors.Is(err, context.DeadlineExceeded):
		f.text, f.hint = fmt.Sprintf("no answer from %s in time", in.address), lateHint
	case hint != "":
		f.text, f.hint = fmt.Sprintf("no trusted TLS connection to %s: %s", in.address, answer.Message()), hint
	case answer.Code() == connect.CodeUnavailable:
		f.text = fmt.Sprintf("cannot reach the controller at %s: %s", in.address, messageOf(answer))
		f.hint = "Is the controller running? To use another one: --address, --context or\n  MIGCTL_ADDRESS; migctl config get-contexts lists your contexts."
	default:
		f.text = fmt.Sprintf("the server at %s is not a controller that migctl understands: %s", in.address, messageOf(answer))
		f.hint = "Check the scheme, port and path of --address, and that migctl and the controller\n  have the same version."
		if rest, plain := strings.CutPrefix(in.address, "http://"); plain && answer.Message() == "400 Bad Request" {
			f.hint = "The server may require TLS: try --address https://" + rest
		}
	}
	return f
}

// detailOf returns the error's ErrorDetail. Where a controller sends none, the
// code implies the reason, unless a proxy could have sent it.
func detailOf(err error) *migcontrollerv1.ErrorDetail {
	answer, ok := errors.AsType[*connect.Error](err)
	if !ok {
		return nil
	}
	if detail := migclient.ErrorDetail(answer); detail != nil {
		return detail
	}
	byCode := map[connect.Code]migcontrollerv1.ErrorReason{
		connect.CodeInvalidArgument:    migcontrollerv1.ErrorReason_ERROR_REASON_INVALID_FIELD,
		connect.CodeAlreadyExists:      migcontrollerv1.ErrorReason_ERROR_REASON_COMMAND_ID_TAKEN,
		connect.CodeFailedPrecondition: migcontrollerv1.ErrorReason_ERROR_REASON_COMMAND_ENDED,
		connect.CodeOutOfRange:         migcontrollerv1.ErrorReason_ERROR_REASON_CURSOR_EXPIRED,
		connect.CodeUnavailable:        migcontrollerv1.ErrorReason_ERROR_REASON_UNAVAILABLE,
		connect.CodeDataLoss:           migcontrollerv1.ErrorReason_ERROR_REASON_DAMAGED,
	}
	return &migcontrollerv1.ErrorDetail{Reason: byCode[answer.Code()]}
}

// refused returns what is printed for an error that the controller returned.
func (in *invocation) refused(err error, answer *connect.Error) *failure {
	f := &failure{code: exitFailed, text: answer.Message(), status: answer.Code().String(), detail: detailOf(err)}
	switch f.detail.GetReason() {
	case migcontrollerv1.ErrorReason_ERROR_REASON_INVALID_FIELD:
		f.code, f.text = exitUsage, "the controller rejected an argument: "+answer.Message()
		if f.detail.GetField() != "" {
			f.text = fmt.Sprintf("%s %s", in.argumentOf(f.detail.GetField()), readable(f.detail.GetRule()))
			f.hint = fmt.Sprintf("The controller requires this of %s. %s", printable(f.detail.GetField()), in.helpHint())
		}
	case migcontrollerv1.ErrorReason_ERROR_REASON_NOT_FOUND:
		f.code = exitNotFound
		if a, ok := errors.AsType[absent](err); ok {
			f.hint = a.hint
		}
	case migcontrollerv1.ErrorReason_ERROR_REASON_COMMAND_ID_TAKEN:
		f.hint = "Choose another --id, or omit it. migctl command ID shows the command that has this id."
	case migcontrollerv1.ErrorReason_ERROR_REASON_COMMAND_ENDED:
		f.hint = "migctl command ID shows how it ended."
	case migcontrollerv1.ErrorReason_ERROR_REASON_CURSOR_EXPIRED:
		f.hint = "Watch without --cursor; migctl events and migctl commands show what happened in between."
	case migcontrollerv1.ErrorReason_ERROR_REASON_DAMAGED:
		f.hint = "Retrying does not help: the record is damaged and was set aside. See the controller's log."
	case migcontrollerv1.ErrorReason_ERROR_REASON_STOPPING:
		f.code, f.hint = exitUnavailable, "Try again once the controller is running again."
	case migcontrollerv1.ErrorReason_ERROR_REASON_UNAVAILABLE,
		migcontrollerv1.ErrorReason_ERROR_REASON_NO_REGISTRATION_TOKEN:
		f.code, f.hint = exitUnavailable, "Try again in a moment. If the error persists, see the controller's log."
	case migcontrollerv1.ErrorReason_ERROR_REASON_UNSPECIFIED:
		refusedByCode(f, answer.Code(), in.address)
	}
	return f
}

// seconds matches durations as the API writes them.
var seconds = regexp.MustCompile(`\b\d+s\b`)

// readable returns a rule with its durations in the form that people write: 30d.
func readable(rule string) string {
	return seconds.ReplaceAllStringFunc(rule, func(text string) string {
		d, err := time.ParseDuration(text)
		if err != nil {
			return text
		}
		return written(d)
	})
}

// refusedByCode fills in the meaning of an error without a reason.
func refusedByCode(f *failure, code connect.Code, address string) {
	switch code {
	case connect.CodeDeadlineExceeded:
		f.code, f.text, f.hint = exitUnavailable, fmt.Sprintf("no answer from %s in time", address), lateHint
	case connect.CodeUnimplemented:
		f.code, f.hint = exitUnavailable, "The controller and migctl may differ in version (migctl version shows both), or\n  another server answers at "+address+"."
	case connect.CodeInternal, connect.CodeUnknown:
		f.hint = "See the controller's log for the cause."
	default:
	}
}

// arguments are the names that the fields of requests have on the command line, where
// that is not the last part of their path.
var arguments = map[string]string{
	"vm_id": "vm", "pool_id": "pool", "org_id": "org", "command_id": "id", "states": "state", "page_size": "limit",
	"command.string_params": "param", "command.int_params": "int", "command.bool_params": "bool",
	"command.string_array_params": "list",
}

// argumentOf returns the name that a field of a request has on this command line: that
// of a flag or an argument, or the field itself if it is neither.
func (in *invocation) argumentOf(field string) string {
	path, key, _ := strings.Cut(field, "[")
	name, known := arguments[path]
	if !known {
		name = strings.ReplaceAll(path[strings.LastIndex(path, ".")+1:], "_", "-")
	}
	if in.node == nil {
		return field
	}
	for _, positional := range in.node.Positional {
		if positional.Name == name {
			return "<" + name + ">"
		}
	}
	if flagOf(in.node, name) == nil {
		return field
	}
	if key != "" {
		return "--" + name + " " + strings.TrimSuffix(key, "]")
	}
	return "--" + name
}
