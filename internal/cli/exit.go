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

// The exit statuses; helpFooter documents them.
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

// timeoutHint is the hint for requests that timed out.
const timeoutHint = "Check --address, or allow more time with --timeout."

// failure is an error with an exit status and a hint.
type failure struct {
	code int
	text string
	// reported is set when the error has already been printed.
	reported bool
	// hint says what to try next; it may be empty.
	hint string
	// status and detail come from the controller's error response; without one they are
	// empty and nil.
	status string
	detail *migcontrollerv1.ErrorDetail
}

// Error returns the message without the hint.
func (f *failure) Error() string { return f.text }

// usage returns an invalid-usage error.
func usage(format string, args ...any) error {
	return &failure{code: exitUsage, text: fmt.Sprintf(format, args...), hint: usageHint}
}

// usageHint is the default hint; helpHint replaces it if the command is known.
const usageHint = "See migctl help, or migctl help COMMAND."

// helpHint points to the help of the current command.
func (in *invocation) helpHint() string {
	if in.node == nil || in.node.Parent == nil {
		return usageHint
	}
	return fmt.Sprintf("See migctl help %s.", strings.TrimPrefix(in.node.FullPath(), "migctl "))
}

// parseFailure converts an error of kong's parser, and sets in.node to the command that
// it is about.
func (in *invocation) parseFailure(err error) error {
	if parseErr, ok := errors.AsType[*kong.ParseError](err); ok && parseErr.Context != nil {
		in.node = parseErr.Context.Selected()
	}
	if missing, found := strings.CutPrefix(err.Error(), `expected "<`); found {
		return usage("missing argument: <%s", strings.TrimSuffix(missing, `"`))
	}
	return usage("%v", err)
}

// alreadyReported returns an error that has been printed and only sets the exit status.
func alreadyReported(code int) error { return &failure{code: code, reported: true} }

// lookupError is the error of a lookup, with the hint to print if the object does not
// exist.
type lookupError struct {
	error
	hint string
}

// Unwrap returns the error of the request.
func (a lookupError) Unwrap() error { return a.error }

// report prints the error, unless it is nil, and returns the exit status.
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

// show prints a failure to stderr. The name identifies one of several objects; it is empty
// if the whole command failed. Structured output is one line of JSON or one YAML document.
func (in *invocation) show(name string, f *failure) {
	if in.structured() {
		in.showStructured(name, f)
		return
	}
	if name != "" {
		fmt.Fprintf(in.stderr, "%s: %s\n", printable(name), printable(f.text))
		return
	}
	fmt.Fprintf(in.stderr, "migctl: %s\n", printable(f.text))
	in.showHint(f)
}

func (in *invocation) showHint(f *failure) {
	for line := range strings.Lines(f.hint) {
		fmt.Fprintf(in.stderr, "  %s\n", printable(strings.TrimSpace(line)))
	}
}

func (in *invocation) showStructured(name string, f *failure) {
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

// explain converts an error to a failure with an exit status and a hint.
func (in *invocation) explain(err error) *failure {
	if f, ok := errors.AsType[*failure](err); ok {
		if f.hint == usageHint {
			f.hint = in.helpHint()
		}
		return f
	}
	rpcErr, ok := errors.AsType[*connect.Error](err)
	switch {
	case !ok:
		return &failure{code: exitFailed, text: err.Error()}
	case rpcErr.Code() == connect.CodeUnauthenticated || rpcErr.Code() == connect.CodePermissionDenied:
		return in.denied(rpcErr)
	case connect.IsWireError(err) && !notController(rpcErr):
		return in.rejected(err, rpcErr)
	default:
		return in.unreachable(err, rpcErr)
	}
}

// denial returns the failure for err if access was denied, and else nil.
func (in *invocation) denial(err error) *failure {
	if err == nil {
		return nil
	}
	if f := in.explain(err); f.code == exitNotAllowed {
		return f
	}
	return nil
}

// denied returns the failure for a call that lacks credentials, a role or pools.
func (in *invocation) denied(rpcErr *connect.Error) *failure {
	f := &failure{
		code: exitNotAllowed, text: fmt.Sprintf("%s denied access: %s", in.address, messageOf(rpcErr)),
		status: rpcErr.Code().String(), detail: migclient.ErrorDetail(rpcErr),
	}
	switch {
	case rpcErr.Code() == connect.CodePermissionDenied:
		f.hint = "migctl whoami shows who you are, and what you may do."
	case in.credentials == nil:
		f.hint = "Provide a token with --token-file, MIGCTL_TOKEN or a context. To store one in a\n  context: migctl config set-context NAME --token-file FILE."
	default:
		f.hint = fmt.Sprintf("The token is from %s.", in.credentials.source)
	}
	return f
}

// messageOf returns the message of an error, or its code if it has none, as errors from a
// proxy may.
func messageOf(rpcErr *connect.Error) string {
	return cmp.Or(rpcErr.Message(), "it answered "+rpcErr.Code().String()+" without a message")
}

// notController reports whether an error comes not from AdminService but from a gateway or
// another path of the controller. AdminService sends a message with every error, and an
// ErrorDetail with every not_found.
func notController(rpcErr *connect.Error) bool {
	wrongPath := rpcErr.Code() == connect.CodeUnimplemented && rpcErr.Message() == "there is nothing at this path"
	return wrongPath || rpcErr.Message() == "" || rpcErr.Code() == connect.CodeNotFound && migclient.ErrorDetail(rpcErr) == nil
}

// unreachable returns the failure for a request that no controller answered.
func (in *invocation) unreachable(err error, rpcErr *connect.Error) *failure {
	f := &failure{code: exitUnavailable}
	hint := tlsHint(err)
	switch {
	case rpcErr.Code() == connect.CodeDeadlineExceeded || errors.Is(err, context.DeadlineExceeded):
		f.text, f.hint = fmt.Sprintf("no answer from %s in time", in.address), timeoutHint
	case hint != "":
		f.text, f.hint = fmt.Sprintf("no trusted TLS connection to %s: %s", in.address, rpcErr.Message()), hint
	case rpcErr.Code() == connect.CodeUnavailable:
		f.text = fmt.Sprintf("cannot reach the controller at %s: %s", in.address, messageOf(rpcErr))
		f.hint = "Is the controller running? To use another one: --address, --context or\n  MIGCTL_ADDRESS; migctl config get-contexts lists your contexts."
	default:
		f.text = fmt.Sprintf("the server at %s is not a controller that migctl understands: %s", in.address, messageOf(rpcErr))
		f.hint = "Check the scheme, port and path of --address, and that migctl and the controller\n  have the same version."
		if rest, plaintext := strings.CutPrefix(in.address, "http://"); plaintext && rpcErr.Message() == "400 Bad Request" {
			f.hint = "The server may require TLS: try --address https://" + rest
		}
	}
	return f
}

// detailOf returns the error's ErrorDetail. If the error has none, the reason is derived
// from the code, except for codes that a proxy may send.
func detailOf(err error) *migcontrollerv1.ErrorDetail {
	rpcErr, ok := errors.AsType[*connect.Error](err)
	if !ok {
		return nil
	}
	if detail := migclient.ErrorDetail(rpcErr); detail != nil {
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
	return &migcontrollerv1.ErrorDetail{Reason: byCode[rpcErr.Code()]}
}

// rejected returns the failure for an error that the controller returned.
func (in *invocation) rejected(err error, rpcErr *connect.Error) *failure {
	f := &failure{code: exitFailed, text: rpcErr.Message(), status: rpcErr.Code().String(), detail: detailOf(err)}
	switch f.detail.GetReason() {
	case migcontrollerv1.ErrorReason_ERROR_REASON_INVALID_FIELD:
		f.code, f.text = exitUsage, "the controller rejected an argument: "+rpcErr.Message()
		if f.detail.GetField() != "" {
			f.text = fmt.Sprintf("%s %s", in.argumentOf(f.detail.GetField()), readableRule(f.detail.GetRule()))
			f.hint = fmt.Sprintf("The controller requires this of %s. %s", printable(f.detail.GetField()), in.helpHint())
		}
	case migcontrollerv1.ErrorReason_ERROR_REASON_NOT_FOUND:
		f.code = exitNotFound
		if a, ok := errors.AsType[lookupError](err); ok {
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
	case migcontrollerv1.ErrorReason_ERROR_REASON_TOO_MANY_FAILURES:
		f.code, f.hint = exitNotAllowed, "Valid credentials are still accepted: provide a token with --token-file,\n  MIGCTL_TOKEN or a context."
	case migcontrollerv1.ErrorReason_ERROR_REASON_TOO_MANY_TOKENS:
		f.hint = "migctl token list shows the tokens, and migctl token revoke ends one."
	case migcontrollerv1.ErrorReason_ERROR_REASON_STOPPING:
		f.code, f.hint = exitUnavailable, "Try again once the controller is running again."
	case migcontrollerv1.ErrorReason_ERROR_REASON_UNAVAILABLE,
		migcontrollerv1.ErrorReason_ERROR_REASON_NO_REGISTRATION_TOKEN:
		f.code, f.hint = exitUnavailable, "Try again in a moment. If the error persists, see the controller's log."
	case migcontrollerv1.ErrorReason_ERROR_REASON_UNSPECIFIED,
		migcontrollerv1.ErrorReason_ERROR_REASON_UNAUTHENTICATED, migcontrollerv1.ErrorReason_ERROR_REASON_PERMISSION_DENIED:
		rejectedByCode(f, rpcErr.Code(), in.address)
	}
	return f
}

// seconds matches durations in the format of the API.
var seconds = regexp.MustCompile(`\b\d+s\b`)

// readableRule reformats the durations in a rule with formatDuration.
func readableRule(rule string) string {
	return seconds.ReplaceAllStringFunc(rule, func(text string) string {
		d, err := time.ParseDuration(text)
		if err != nil {
			return text
		}
		return formatDuration(d)
	})
}

// rejectedByCode fills in a failure whose error has no reason.
func rejectedByCode(f *failure, code connect.Code, address string) {
	switch code {
	case connect.CodeDeadlineExceeded:
		f.code, f.text, f.hint = exitUnavailable, fmt.Sprintf("no answer from %s in time", address), timeoutHint
	case connect.CodeUnimplemented:
		f.code, f.hint = exitUnavailable, "The controller and migctl may differ in version (migctl version shows both), or\n  another server answers at "+address+"."
	case connect.CodeInternal, connect.CodeUnknown:
		f.hint = "See the controller's log for the cause."
	default:
	}
}

// argumentNames maps request fields to the names of their flags or arguments, where that
// is not the last part of the field path.
var argumentNames = map[string]string{
	"vm_id": "vm", "pool_id": "pool", "org_id": "org", "command_id": "id", "states": "state", "page_size": "limit",
	"command.string_params": "param", "command.int_params": "int", "command.bool_params": "bool",
	"command.string_array_params": "list",
}

// argumentOf returns the flag or argument of the current command that sets a request
// field, or the field itself if there is none.
func (in *invocation) argumentOf(field string) string {
	path, key, _ := strings.Cut(field, "[")
	name, known := argumentNames[path]
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
