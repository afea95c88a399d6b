package apidoc

import (
	"net/http"
	"regexp"
	"slices"
	"strings"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// statuses are the HTTP statuses of the codes in Connect.
var statuses = map[connect.Code]int{
	connect.CodeCanceled:           499,
	connect.CodeUnknown:            http.StatusInternalServerError,
	connect.CodeInvalidArgument:    http.StatusBadRequest,
	connect.CodeDeadlineExceeded:   http.StatusGatewayTimeout,
	connect.CodeNotFound:           http.StatusNotFound,
	connect.CodeAlreadyExists:      http.StatusConflict,
	connect.CodePermissionDenied:   http.StatusForbidden,
	connect.CodeResourceExhausted:  http.StatusTooManyRequests,
	connect.CodeFailedPrecondition: http.StatusBadRequest,
	connect.CodeAborted:            http.StatusConflict,
	connect.CodeOutOfRange:         http.StatusBadRequest,
	connect.CodeUnimplemented:      http.StatusNotImplemented,
	connect.CodeInternal:           http.StatusInternalServerError,
	connect.CodeUnavailable:        http.StatusServiceUnavailable,
	connect.CodeDataLoss:           http.StatusInternalServerError,
	connect.CodeUnauthenticated:    http.StatusUnauthorized,
}

// codeNames returns the names of the codes in errors, in the order of their numbers.
func codeNames() []string {
	var names []string
	for code := connect.CodeCanceled; code <= connect.CodeUnauthenticated; code++ {
		names = append(names, code.String())
	}
	return names
}

var upperWord = regexp.MustCompile(`\b[A-Z][A-Z_]+\b`)

// codesIn returns the codes that a comment mentions.
func codesIn(comment string) []connect.Code {
	var codes []connect.Code
	for _, word := range upperWord.FindAllString(comment, -1) {
		var code connect.Code
		if code.UnmarshalText([]byte(strings.ToLower(word))) == nil && !slices.Contains(codes, code) {
			codes = append(codes, code)
		}
	}
	slices.Sort(codes)
	return codes
}

// codesOf returns the codes that a call of the method may return: those that the comments of
// the method and its service mention as errors. The errors of AdminService are those of all
// methods for operators, whose callers may also be rejected.
func (s Schema) codesOf(m protoreflect.MethodDescriptor) []connect.Code {
	if requirementOf(m) == "" {
		return codesIn(errorsOfAll(m.Parent()) + errorsOf(m))
	}
	rejected := []connect.Code{connect.CodeUnauthenticated, connect.CodePermissionDenied, connect.CodeResourceExhausted}
	codes := append(codesIn(errorsOfAll(s.service(adminService))+errorsOf(m)), rejected...)
	slices.Sort(codes)
	return slices.Compact(codes)
}

// errorsOfAll returns what the comment of a service says about the errors of all methods.
func errorsOfAll(service protoreflect.Descriptor) string {
	first, _, _ := strings.Cut(errorsOf(service), ". ")
	return first
}

func errorsOf(d protoreflect.Descriptor) string {
	_, errs, _ := strings.Cut(comment(d), "Errors")
	return errs
}
