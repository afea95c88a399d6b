package apidoc

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"connectrpc.com/connect"
	"github.com/pb33f/libopenapi"
	validator "github.com/pb33f/libopenapi-validator"
	"github.com/pb33f/libopenapi-validator/config"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/mig-controller/mig-controller/internal/fleet"
)

// The document that the controller serves is up to date.
func TestOpenAPIIsGenerated(t *testing.T) {
	t.Parallel()
	requireCommitted(t, filepath.Join("..", "rpc", "openapi.json"), string(openAPI(t, loadSchema(t))))
}

// The document is valid OpenAPI 3.1.
func TestOpenAPIIsValid(t *testing.T) {
	t.Parallel()
	document := openAPI(t, loadSchema(t))
	_, faults := newValidator(t, document).ValidateDocument()
	require.Empty(t, faults)

	broken := bytes.Replace(document, []byte(`"responses"`), []byte(`"answers"`), 1)
	valid, _ := newValidator(t, broken).ValidateDocument()
	require.False(t, valid, "a document that violates the specification is found")
}

// The validation of requests and responses finds violations.
func TestOpenAPIViolationsAreFound(t *testing.T) {
	t.Parallel()
	v := newStrictValidator(t, openAPI(t, loadSchema(t)))
	const getVM, commands = "/" + adminService + "/GetVM", "/api/v1/vms/vm-1/commands"
	const listVMs, send = "/" + adminService + "/ListVMs", "/" + adminService + "/SendCommand"
	for _, test := range []struct {
		method, path, sent string
		status             int
		answer             string
		ok                 bool
	}{
		{"POST", getVM, `{"vmId":"vm-1"}`, 200, `{"vm":{"boot":"1","lastSeenAt":"2026-01-02T03:04:05Z"}}`, true},
		{"POST", getVM, `{"vmId":"vm-1"}`, 200, `{"vm":{"boot":1}}`, false},
		{"POST", getVM, `{"vmId":"vm-1"}`, 200, `{"vm":{"lastSeenAt":"yesterday"}}`, false},
		{"POST", getVM, `{"vmId":"vm-1"}`, 200, `{"vm":{"weather":"fine"}}`, false},
		{"POST", getVM, `{"vmId":"vm-1"}`, 200, `{"vm":{"registration":{"state":"LOST"}}}`, false},
		{"POST", getVM, `{"vmId":1}`, 200, `{}`, false},
		{"POST", getVM, `{}`, 200, `{}`, false},
		{"POST", getVM, `{"vmId":""}`, 200, `{}`, false},
		{"POST", getVM, `{"vmId":"-vm"}`, 200, `{}`, false},
		{"POST", getVM, `{"vmId":"vm 1"}`, 200, `{}`, false},
		{"POST", listVMs, `{"pageSize":1000}`, 200, `{}`, true},
		{"POST", listVMs, `{"pageSize":1001}`, 200, `{}`, false},
		{"POST", listVMs, `{"pageSize":-1}`, 200, `{}`, false},
		{"POST", send, `{"vmId":"vm-1","command":{"type":"drain"}}`, 200, `{}`, true},
		{"POST", send, `{"vmId":"vm-1","command":{"id":"-","type":"drain"}}`, 200, `{}`, false},
		{"POST", send, `{"vmId":"vm-1","command":{}}`, 200, `{}`, false},
		{"POST", send, `{"vmId":"vm-1"}`, 200, `{}`, false},
		{"POST", getVM, `{"vmId":"vm-1"}`, 405, `{"code":"unknown","message":"the method must be GET or POST"}`, true},
		{"POST", getVM, `{"vmId":"vm-1"}`, 415, `{"code":"unknown","message":"Content-Type must be"}`, true},
		{"POST", getVM, `{"vmId":"vm-1"}`, 404, `{"code":"not_found","message":"not found"}`, true},
		{"POST", getVM, `{"vmId":"vm-1"}`, 404, `{"code":"lost"}`, false},
		{"POST", getVM, `{"vmId":"vm-1"}`, 404, `{}`, false},
		{"GET", commands, "", 200, `{"commands":[],"vm_id":"vm-1"}`, true},
		{"GET", commands, "", 200, `{"commands":[]}`, false},
		{"GET", commands, "", 200, `{"commands":[],"vmId":"vm-1"}`, false},
	} {
		request, err := http.NewRequestWithContext(t.Context(), test.method, "http://controller"+test.path, strings.NewReader(test.sent))
		require.NoError(t, err)
		request.Header.Set("Content-Type", jsonType)
		response := &http.Response{StatusCode: test.status, Header: http.Header{"Content-Type": {jsonType}}}
		got := faultsOf(v, exchange{request, response, []byte(test.sent), []byte(test.answer)})
		require.Equal(t, test.ok, got == "", "%s %s: %s", test.sent, test.answer, got)
	}
}

// The documents have the real status of each code.
func TestStatuses(t *testing.T) {
	t.Parallel()
	for code := connect.CodeCanceled; code <= connect.CodeUnauthenticated; code++ {
		handler := connect.NewUnaryHandler("/", func(context.Context, *connect.Request[emptypb.Empty]) (*connect.Response[emptypb.Empty], error) {
			return nil, connect.NewError(code, nil)
		})
		request := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/", strings.NewReader("{}"))
		request.Header.Set("Content-Type", jsonType)
		answer := httptest.NewRecorder()
		handler.ServeHTTP(answer, request)
		require.Equal(t, answer.Code, statuses[code], code)
	}
}

// requireDocumented requires requests and responses to match the document.
func requireDocumented(t *testing.T, s Schema, exchanges []exchange) {
	t.Helper()
	v := newStrictValidator(t, openAPI(t, s))
	for _, e := range exchanges {
		if strings.HasPrefix(e.request.URL.Path, "/"+agentService+"/") {
			continue // the document has the routes instead
		}
		if e.request.Header.Get("Content-Type") != streamType {
			require.Empty(t, faultsOf(v, e), "%s\n%s", e.request.URL, e.answer)
			continue
		}
		sent, answers := opened(t, e.sent), opened(t, e.answer)
		for _, answer := range answers {
			require.Empty(t, faultsOf(v, exchange{e.request, e.response, sent[0], answer}), "%s\n%s", e.request.URL, answer)
		}
	}
}

// opened returns the messages in the envelopes of a stream.
func opened(t *testing.T, stream []byte) [][]byte {
	t.Helper()
	var messages [][]byte
	for len(stream) > 0 {
		require.GreaterOrEqual(t, len(stream), 5)
		end := 5 + int(binary.BigEndian.Uint32(stream[1:5]))
		require.GreaterOrEqual(t, len(stream), end)
		messages = append(messages, stream[5:end])
		stream = stream[end:]
	}
	require.NotEmpty(t, messages)
	return messages
}

// faultsOf returns how an exchange differs from the document.
func faultsOf(v validator.Validator, e exchange) string {
	request := e.request.Clone(e.request.Context())
	response := *e.response
	request.Body, response.Body = io.NopCloser(bytes.NewReader(e.sent)), io.NopCloser(bytes.NewReader(e.answer))
	var faults []string
	_, found := v.ValidateHttpRequestResponse(request, &response)
	for _, f := range found {
		faults = append(faults, fmt.Sprintf("%s: %s %v", f.Message, f.Reason, f.SchemaValidationErrors))
	}
	return strings.Join(faults, "\n")
}

func openAPI(t *testing.T, s Schema) []byte {
	t.Helper()
	data, err := s.OpenAPI()
	require.NoError(t, err)
	return data
}

// newStrictValidator also refuses members that are not in the document. Clients must accept
// them, because the schema grows.
func newStrictValidator(t *testing.T, data []byte) validator.Validator {
	t.Helper()
	var document any
	require.NoError(t, json.Unmarshal(data, &document))
	closeSchemas(document)
	data, err := json.Marshal(document)
	require.NoError(t, err)
	return newValidator(t, data)
}

func closeSchemas(value any) {
	switch v := value.(type) {
	case map[string]any:
		if _, ok := v["properties"]; ok {
			v["additionalProperties"] = false
		}
		for _, member := range v {
			closeSchemas(member)
		}
	case []any:
		for _, element := range v {
			closeSchemas(element)
		}
	}
}

func newValidator(t *testing.T, data []byte) validator.Validator {
	t.Helper()
	parsed, err := libopenapi.NewDocument(data)
	require.NoError(t, err)
	v, errs := validator.NewValidator(parsed, config.WithFormatAssertions())
	require.Empty(t, errs)
	t.Cleanup(v.Release)
	return v
}

// Every operation has the responses to a wrong HTTP method and, if it has a body, to a wrong
// content type; those for operators, and only they, name a role, accept credentials and may
// reject the caller; their requests, and only they, refuse unknown members; and no name derived
// from an operation is the name of a message.
func TestOpenAPIIsComplete(t *testing.T) {
	t.Parallel()
	var document struct {
		Paths map[string]map[string]struct {
			ID        string         `json:"operationId"`
			About     string         `json:"description"`
			Security  []any          `json:"security"`
			Request   map[string]any `json:"requestBody"`
			Responses map[string]any `json:"responses"`
		} `json:"paths"`
		Components struct {
			Schemas  map[string]map[string]any `json:"schemas"`
			Security map[string]any            `json:"securitySchemes"`
		} `json:"components"`
		Security []map[string][]string `json:"security"`
	}
	require.NoError(t, json.Unmarshal(openAPI(t, loadSchema(t)), &document))
	schemas := document.Components.Schemas
	require.Equal(t, []map[string][]string{{}, {"bearer": {}}}, document.Security)
	require.Contains(t, document.Components.Security, "bearer")
	for path, operations := range document.Paths {
		for _, o := range operations {
			forOperators := !strings.HasPrefix(path, "/api/v1/")
			require.Equal(t, forOperators, o.Security == nil, "%s inherits the security of the document", path)
			require.Equal(t, forOperators, strings.Contains(o.About, "It requires the role "), path)
			for _, status := range []string{"401", "403", "429"} {
				_, rejects := o.Responses[status]
				require.Equal(t, forOperators && !strings.HasSuffix(path, "/WatchFleet"), rejects, "%s %s", path, status)
			}
			require.Contains(t, o.Responses, "405", path)
			if o.Request != nil {
				require.Contains(t, o.Responses, "415", path)
			}
			for _, suffix := range []string{"", "Request", "Response", "JSONBody", "JSONRequestBody", "Params"} {
				require.NotContains(t, schemas, strings.ReplaceAll(o.ID, "_", "")+suffix, "oapi-codegen makes this of %s", path)
				require.NotContains(t, schemas, o.ID+suffix, path)
			}
		}
	}
	for name, schema := range schemas {
		closed, given := schema["additionalProperties"]
		require.Equal(t, strings.HasSuffix(name, "Request"), given, name)
		require.True(t, !given || closed == false, name)
	}
}

// The pattern of ids accepts the same ids as the controller.
func TestIDPattern(t *testing.T) {
	t.Parallel()
	pattern := regexp.MustCompile("^" + idPattern + "$")
	for _, id := range []string{
		"", "a", "0", "-a", ".a", "_a", "a.b_c-D9", "a b", "\u00e4", "a/b", strings.Repeat("x", 128), strings.Repeat("x", 129),
	} {
		_, err := fleet.ParseVMID(id)
		require.Equal(t, err == nil, pattern.MatchString(id), id)
	}
}
