package app

import (
	"crypto/tls"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/durationpb"

	migcontrollerv1 "github.com/mig-controller/mig-controller/gen/go/migcontroller/v1"
	"github.com/mig-controller/mig-controller/gen/go/migcontroller/v1/migcontrollerv1connect"
	"github.com/mig-controller/mig-controller/gen/go/miglet/commands"
	"github.com/mig-controller/mig-controller/internal/config"
	"github.com/mig-controller/mig-controller/internal/testkit"
)

// tlsOptions are testOptions with a certificate.
func tlsOptions(t *testing.T) (config.Options, testkit.Identity) {
	t.Helper()
	o, i := testOptions(t), testkit.NewIdentity(t, testkit.FarOff)
	dir := t.TempDir()
	o.TLSCert, o.TLSKey = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	i.Write(t, o.TLSCert, o.TLSKey)
	return o, i
}

// Unusable files are refused with the option and the rule, and nothing is left behind.
func TestTLSOptions(t *testing.T) {
	t.Parallel()
	good, other := testkit.NewIdentity(t, testkit.FarOff), testkit.NewIdentity(t, testkit.FarOff)
	dir := t.TempDir()
	file := func(name string, content []byte) string {
		path := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(path, content, 0o600))
		return path
	}
	cert, key, otherKey := file("cert", good.Chain), file("key", good.Key), file("other", other.Key)
	text, missing := file("text", []byte("hush")), filepath.Join(dir, "missing")
	const pair = "--tls-cert and --tls-key must be a certificate and its key in PEM: "
	for _, test := range []struct{ cert, key, want string }{
		{cert, "", "--tls-cert must be given with --tls-key (from the command line)"},
		{"", key, "--tls-key must be given with --tls-cert (from the command line)"},
		{missing, key, "--tls-cert must name a file that can be read: open " + missing},
		{cert, missing, "--tls-key must name a file that can be read: open " + missing},
		{cert, dir, "--tls-key must name a file that can be read: "},
		{cert, otherKey, pair + "tls: private key does not match public key (from the command line)"},
		{text, key, pair},
		{cert, text, pair},
		{key, cert, pair},
	} {
		p := newProcess(newFakeService())
		data := filepath.Join(t.TempDir(), "data")
		args := []string{"--http-addr=127.0.0.1:0", "--grpc-addr=127.0.0.1:0", "--data-dir=" + data}
		for option, path := range map[string]string{"--tls-cert=": test.cert, "--tls-key=": test.key} {
			if path != "" {
				args = append(args, option+path)
			}
		}
		require.Equal(t, exitUsage, p.run(args), test.want)
		require.Contains(t, p.err.String(), "controller: "+test.want)
		require.NotContains(t, p.err.String(), "hush")
		require.NoDirExists(t, data)
	}
}

// tlsClient returns a client for the HTTP version with this number, with TLS.
func tlsClient(t *testing.T, i testkit.Identity, major int) *http.Client {
	t.Helper()
	p := new(http.Protocols)
	p.SetHTTP1(major == 1)
	p.SetHTTP2(major == 2)
	tr := &http.Transport{Protocols: p, TLSClientConfig: i.Trusts()}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr}
}

func requireServesTLS(t *testing.T, i testkit.Identity, addr string) {
	t.Helper()
	for major := 1; major <= 2; major++ {
		res, err := get(t, tlsClient(t, i, major), "https://"+addr)
		require.NoError(t, err)
		require.NoError(t, res.Body.Close())
		require.Equal(t, http.StatusOK, res.StatusCode)
		require.Equal(t, major, res.ProtoMajor)
	}
}

// With a certificate both addresses serve only TLS, which the start-up text shows.
func TestServesTLS(t *testing.T) {
	t.Parallel()
	o, i := tlsOptions(t)
	var out, logged output
	o.LogLevel = "info"
	a, err := newApp(t.Context(), o, newLogger(o, &logged), &out, newFakeService().wiring())
	require.NoError(t, err)
	handler := a.gate.handler
	a.gate.handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.TLS == nil || r.TLS.Version < tls.VersionTLS12 {
			http.Error(w, "the request does not know of TLS", http.StatusInternalServerError)
			return
		}
		handler.ServeHTTP(w, r)
	})
	stop := startApp(t, a)
	for _, addr := range []string{a.HTTPAddr(), a.GRPCAddr()} {
		requireServesTLS(t, i, addr)
		res, err := get(t, h1Client(t), "http://"+addr)
		require.NoError(t, err)
		body, err := io.ReadAll(res.Body)
		require.NoError(t, err)
		require.NoError(t, res.Body.Close())
		require.Equal(t, http.StatusBadRequest, res.StatusCode)
		require.Equal(t, "This port speaks TLS: use https.\n", string(body))
	}
	require.NoError(t, stop())
	require.Contains(t, out.String(), "http addr   https://"+a.HTTPAddr()+"\n")
	require.Contains(t, out.String(), "grpc addr   "+a.GRPCAddr()+" with TLS\n")
	require.Contains(t, out.String(), "tls         "+o.TLSCert+", valid until 2100-01-01T00:00:00Z\n")
	require.NotContains(t, logged.String(), "handshake", "errors of peers are not logged at this level")
}

// All protocols work with TLS, and simulated agents accept the controller's certificate
// whatever its names.
func TestAllProtocolsOverTLS(t *testing.T) {
	t.Parallel()
	o, i := tlsOptions(t)
	o.Simulate = 1
	a, err := New(t.Context(), o, quiet(), io.Discard)
	require.NoError(t, err)
	stop := startApp(t, a)
	for major, options := range map[int][][]connect.ClientOption{
		1: {{connect.WithProtoJSON()}, {connect.WithGRPCWeb()}, nil},
		2: {{connect.WithProtoJSON()}, {connect.WithGRPCWeb()}, nil, {connect.WithGRPC()}},
	} {
		for _, option := range options {
			admin := migcontrollerv1connect.NewAdminServiceClient(tlsClient(t, i, major), "https://"+a.GRPCAddr(), option...)
			res, err := admin.SendCommand(t.Context(), &migcontrollerv1.SendCommandRequest{
				VmId: "sim-vm-0001", Command: &commands.Command{Type: "set_log_level"}, Wait: durationpb.New(20 * time.Second),
			})
			require.NoError(t, err)
			require.Equal(t, migcontrollerv1.CommandState_COMMAND_STATE_SUCCEEDED, res.GetCommand().GetState())
		}
		res, err := get(t, tlsClient(t, i, major), "https://"+a.HTTPAddr()+"/ready")
		require.NoError(t, err)
		require.NoError(t, res.Body.Close())
		require.Equal(t, http.StatusOK, res.StatusCode)
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "https://"+a.HTTPAddr()+"/api/v1/vms/vm-7/heartbeat",
			strings.NewReader(`{"vm_id": "vm-7"}`))
		require.NoError(t, err)
		req.Header.Set("Content-Type", "application/json")
		res, err = tlsClient(t, i, major).Do(req)
		require.NoError(t, err)
		var answer map[string]any
		require.NoError(t, json.NewDecoder(res.Body).Decode(&answer))
		require.NoError(t, res.Body.Close())
		require.Equal(t, http.StatusOK, res.StatusCode, "%v", answer)
	}
	require.NoError(t, stop())
}
