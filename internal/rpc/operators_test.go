package rpc

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"

	migcontrollerv1 "github.com/mig-controller/mig-controller/gen/go/migcontroller/v1"
	"github.com/mig-controller/mig-controller/gen/go/migcontroller/v1/migcontrollerv1connect"
	"github.com/mig-controller/mig-controller/internal/auth"
	"github.com/mig-controller/mig-controller/internal/readiness"
)

// operatorMethods are the methods of all services for operators.
func operatorMethods() (all []protoreflect.MethodDescriptor) {
	for _, file := range []protoreflect.FileDescriptor{
		migcontrollerv1.File_migcontroller_v1_admin_service_proto, migcontrollerv1.File_migcontroller_v1_access_service_proto,
	} {
		methods := file.Services().Get(0).Methods()
		for i := range methods.Len() {
			all = append(all, methods.Get(i))
		}
	}
	return all
}

func procedureOf(m protoreflect.MethodDescriptor) string {
	return "/" + string(m.Parent().FullName()) + "/" + string(m.Name())
}

// Every method for operators declares what it requires, in the schema: those that change
// something at least an operator. What is not declared is allowed to nobody.
func TestEveryMethodHasARequirement(t *testing.T) {
	t.Parallel()
	for _, m := range operatorMethods() {
		need := requirementOf(procedureOf(m))
		require.True(t, need.Role.Valid(), "%s has no option requires", m.FullName())
		require.Equal(t, string(m.Parent().Name())+"/"+string(m.Name()), need.Action)
		options := m.Options().(interface { //nolint:errcheck,forcetypeassert // of a method
			GetIdempotencyLevel() descriptorpb.MethodOptions_IdempotencyLevel
		})
		if !m.IsStreamingServer() && options.GetIdempotencyLevel() == 0 {
			require.True(t, need.Role.Includes(auth.Operator), m.FullName())
		}
	}
	require.Empty(t, requirementOf("/miglet.commands.CommandService/StreamCommands").Role)
	require.Empty(t, requirementOf("/migcontroller.v1.AdminService/None").Role)
	require.Equal(t, auth.Viewer, requirementOf("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo").Role)
}

// holder admits one principal, by its role.
type holder struct{ p auth.Principal }

func (h holder) Admit(_ *http.Request, need auth.Requirement) (auth.Principal, error) {
	if h.p.Role == "" {
		return auth.Principal{}, auth.ErrMissing
	}
	if !h.p.Role.Includes(need.Role) || need.AllPools && !h.p.Scope.All() {
		return auth.Principal{}, &auth.Forbidden{Message: need.Action + " requires more"}
	}
	return h.p, nil
}

func (h holder) Required() bool { return true }

// Each method serves the roles that it requires and those above, and nobody else, over JSON.
func TestRolesOfMethods(t *testing.T) {
	t.Parallel()
	for _, role := range append([]auth.Role{""}, auth.Roles...) {
		for _, scope := range []auth.Scope{auth.AllPools(), auth.OnlyPools("a")} {
			c := config(&fakeAgents{})
			c.Admin = migcontrollerv1connect.UnimplementedAdminServiceHandler{}
			c.Operators = holder{auth.Principal{Role: role, Scope: scope}}
			base := "http://" + serve(t, NewHandler(c))
			for _, m := range operatorMethods() {
				contentType, body := contentJSON, "{}"
				if m.IsStreamingServer() {
					contentType, body = "application/connect+json", "\x00\x00\x00\x00\x02{}"
				}
				got := do(t, client(t, 1), http.MethodPost, base+procedureOf(m), body, "Content-Type", contentType)
				need := requirementOf(procedureOf(m))
				switch {
				case role == "":
					require.Contains(t, got.body, `"unauthenticated"`, m.FullName())
					require.Contains(t, got.body, "migctl token create")
					if !m.IsStreamingServer() {
						require.Equal(t, http.StatusUnauthorized, got.status)
						require.Contains(t, got.header.Get("WWW-Authenticate"), "Bearer")
					}
				case !role.Includes(need.Role) || need.AllPools && !scope.All():
					require.Contains(t, got.body, `"permission_denied"`, m.FullName())
				default:
					require.Contains(t, got.body, `"unimplemented"`, m.FullName())
				}
			}
		}
	}
}

// A rejection has its code and its reason in every protocol, and comes before the body is
// read.
func TestRejectionInEveryProtocol(t *testing.T) {
	t.Parallel()
	c := config(&fakeAgents{})
	c.Operators = holder{}
	address := "http://" + serve(t, NewHandler(c))
	for name, option := range map[string]connect.ClientOption{
		"connect": connect.WithProtoJSON(), "grpc": connect.WithGRPC(), "grpc-web": connect.WithGRPCWeb(), "get": connect.WithHTTPGet(),
	} {
		_, err := migcontrollerv1connect.NewAdminServiceClient(client(t, 2), address, option).
			GetVM(t.Context(), &migcontrollerv1.GetVMRequest{VmId: "vm-1"})
		var rejected *connect.Error
		require.ErrorAs(t, err, &rejected, name)
		require.Equal(t, connect.CodeUnauthenticated, rejected.Code(), name)
		require.Len(t, rejected.Details(), 1, name)
		detail, err := rejected.Details()[0].Value()
		require.NoError(t, err)
		require.Equal(t, migcontrollerv1.ErrorReason_ERROR_REASON_UNAUTHENTICATED, detail.(*migcontrollerv1.ErrorDetail).GetReason()) //nolint:errcheck,forcetypeassert // by its type
	}
	body := &unread{}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, address+migcontrollerv1connect.AdminServiceSendCommandProcedure, body)
	require.NoError(t, err)
	req.ContentLength = 1 << 20
	req.Header.Set("Content-Type", contentJSON)
	req.Header.Set("Expect", "100-continue")
	transport := &http.Transport{ExpectContinueTimeout: time.Minute}
	t.Cleanup(transport.CloseIdleConnections)
	resp, err := (&http.Client{Transport: transport}).Do(req)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	require.Equal(t, http.StatusUnauthorized, resp.StatusCode)
	require.False(t, body.read)
}

// unread is a body that says whether it was read.
type unread struct{ read bool }

func (u *unread) Read([]byte) (int, error) {
	u.read = true
	return 0, io.EOF
}

// Health is open. Details, metrics, the schema and reflection require a viewer, and metrics
// one of all pools.
func TestPagesForOperators(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		p       auth.Principal
		pages   int
		metrics int
	}{
		"nobody":           {auth.Principal{}, http.StatusUnauthorized, http.StatusUnauthorized},
		"viewer of a pool": {auth.Principal{Role: auth.Viewer, Scope: auth.OnlyPools("a")}, http.StatusOK, http.StatusForbidden},
		"viewer":           {auth.Principal{Role: auth.Viewer, Scope: auth.AllPools()}, http.StatusOK, http.StatusOK},
	} {
		c := config(&fakeAgents{})
		c.Operators, c.Warnings = holder{test.p}, []string{"--something"}
		c.MetricsPage = http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})
		base := "http://" + serve(t, NewHandler(c))
		for path, want := range map[string]int{
			"/health": http.StatusOK, "/ready": http.StatusOK, "/": http.StatusOK,
			"/ready?verbose": test.pages, "/openapi.json": test.pages, "/metrics": test.metrics,
		} {
			resp := do(t, client(t, 1), http.MethodGet, base+path, "")
			require.Equal(t, want, resp.status, "%s %s", name, path)
			require.Equal(t, path == "/ready?verbose" && want == http.StatusOK, strings.Contains(resp.body, "--something"), path)
		}
	}
}

// While credentials are needed, /ready names what failed, and not why.
func TestReadyWithoutDetails(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		admitter Admitter
		reason   string
	}{{anyone{}, "the disk is full"}, {holder{}, "store"}} {
		c := config(&fakeAgents{})
		c.Operators = test.admitter
		c.Ready = readiness.New(readiness.Check{Name: "store", Run: func(context.Context) error { return errors.New("the disk is full") }})
		resp := do(t, client(t, 1), http.MethodGet, "http://"+serve(t, NewHandler(c))+"/ready", "")
		require.Equal(t, http.StatusServiceUnavailable, resp.status)
		require.Contains(t, resp.body, `"reason":"`+test.reason+`"`)
	}
}
