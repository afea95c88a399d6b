//go:build faults

package faults

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/gen/go/migclient"
	migcontrollerv1 "github.com/mig-controller/mig-controller/gen/go/migcontroller/v1"
	"github.com/mig-controller/mig-controller/gen/go/migcontroller/v1/migcontrollerv1connect"
)

// proxyKind is a proxy in the configuration of a scenario.
type proxyKind struct {
	name  string
	start func(t *testing.T, s *proxySetup) *child
	// connections returns the range of the number of connections to the controller for n
	// agents.
	connections func(n int) (least, most int)
}

// proxySetup is a controller behind a proxy, on ports of their own.
type proxySetup struct {
	dir string

	controller *controller
	grpc       string // its address for agents only
	proxy      *child

	// The proxy's addresses: for agents' streams and their HTTP routes, and for operators,
	// with TLS.
	stream, routes, secure string
	// token is an operator's.
	token string
}

// newProxySetup starts a controller and a proxy in front of it.
func newProxySetup(t *testing.T, kind proxyKind) *proxySetup {
	t.Helper()
	ports := freePorts(t, 4)
	s := &proxySetup{
		dir: t.TempDir(), controller: startController(t, "--grpc-addr="+ports[0]),
		grpc: ports[0], stream: ports[1], routes: ports[2], secure: ports[3],
	}
	s.proxy = kind.start(t, s)
	awaitListener(t, s.stream, s.proxy)
	s.token = s.controller.requireToken(t)
	return s
}

// requireToken creates an operator's token, so that operators need credentials, uses it for
// c.admin, and returns it.
func (c *controller) requireToken(t *testing.T) string {
	t.Helper()
	client, address := &http.Client{Transport: newTransport(t)}, "http://"+c.addr
	created, err := migcontrollerv1connect.NewAccessServiceClient(client, address).CreateToken(t.Context(), &migcontrollerv1.CreateTokenRequest{
		Name: "tests", Role: migcontrollerv1.Role_ROLE_OPERATOR,
	})
	require.NoError(t, err)
	c.admin = migcontrollerv1connect.NewAdminServiceClient(client, address, withToken(t, address, created.GetSecret()))
	return created.GetSecret()
}

func withToken(t *testing.T, address, token string) connect.ClientOption {
	t.Helper()
	option, err := migclient.WithToken(address, token)
	require.NoError(t, err)
	return option
}

// operator returns a client of the admin API through the proxy, with TLS.
func (s *proxySetup) operator(t *testing.T, options ...connect.ClientOption) migcontrollerv1connect.AdminServiceClient {
	t.Helper()
	address := "https://" + s.secure
	return migcontrollerv1connect.NewAdminServiceClient(s.secureClient(t, true), address, append(options, withToken(t, address, s.token))...)
}

// secureClient returns a client that trusts the proxy's certificate.
func (s *proxySetup) secureClient(t *testing.T, http2 bool) *http.Client {
	t.Helper()
	certificate, err := os.ReadFile(filepath.Join(s.dir, "controller.pem"))
	require.NoError(t, err)
	roots := x509.NewCertPool()
	require.True(t, roots.AppendCertsFromPEM(certificate))
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, ForceAttemptHTTP2: http2}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

// writeCertificate writes a certificate for 127.0.0.1, its key, and both in one file.
func (s *proxySetup) writeCertificate(t *testing.T) {
	t.Helper()
	server := httptest.NewUnstartedServer(nil)
	server.StartTLS()
	server.Close()
	pair := server.TLS.Certificates[0]
	key, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
	require.NoError(t, err)
	certificatePEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: pair.Certificate[0]})
	keyPEM := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})
	for name, content := range map[string][]byte{
		"controller.pem":         certificatePEM,
		"controller-key.pem":     keyPEM,
		"controller-and-key.pem": append(bytes.Clone(certificatePEM), keyPEM...),
	} {
		require.NoError(t, os.WriteFile(filepath.Join(s.dir, name), content, 0o600))
	}
}

// configure writes the configuration to a file, with ports and paths replaced. Each
// replaced text must exist.
func (s *proxySetup) configure(t *testing.T, content string, replaced ...string) string {
	t.Helper()
	for i := 0; i < len(replaced); i += 2 {
		require.Contains(t, content, replaced[i])
		content = strings.ReplaceAll(content, replaced[i], replaced[i+1])
	}
	file := filepath.Join(s.dir, "proxy.conf")
	require.NoError(t, os.WriteFile(file, []byte(content), 0o600))
	return file
}

// startNginx starts nginx with the configuration in deploy/proxy.
func startNginx(t *testing.T, s *proxySetup) *child {
	t.Helper()
	content, err := os.ReadFile("../../deploy/proxy/nginx.conf")
	require.NoError(t, err)
	s.writeCertificate(t)
	return s.nginx(t, string(content),
		"user www-data;", "",
		"worker_processes auto;", "worker_processes 1;",
		"/run/nginx.pid", s.dir+"/nginx.pid",
		"/var/log/nginx/error.log", s.dir+"/error.log",
		"/var/log/nginx/access.log", s.dir+"/access.log",
		"/etc/ssl/controller/", s.dir+"/",
		"server 127.0.0.1:50051;", "server "+s.grpc+";",
		"server 127.0.0.1:8080;", "server "+s.controller.addr+";",
		"listen 50052 ", "listen "+s.stream+" ",
		"listen 8081 ", "listen "+s.routes+" ",
		"listen 8443 ", "listen "+s.secure+" ",
	)
}

// startDefaultNginx starts nginx with its defaults wherever possible.
func startDefaultNginx(t *testing.T, s *proxySetup) *child {
	t.Helper()
	return s.nginx(t, `
pid `+s.dir+`/nginx.pid;
error_log `+s.dir+`/error.log;
events {}
http {
    access_log off;
    server {
        listen `+s.stream+` http2;
        location / { grpc_pass grpc://`+s.grpc+`; }
    }
}`)
}

// nginx starts nginx with this configuration, after replacing texts in it.
func (s *proxySetup) nginx(t *testing.T, content string, replaced ...string) *child {
	t.Helper()
	// The compiled-in paths are writable by root only.
	var paths strings.Builder
	for _, module := range []string{"client_body", "proxy", "fastcgi", "uwsgi", "scgi"} {
		fmt.Fprintf(&paths, "    %s_temp_path %s/%[1]s;\n", module, s.dir)
	}
	file := s.configure(t, content, append(replaced, "\nhttp {\n", "\nhttp {\n"+paths.String())...)
	return startChild(t, exec.CommandContext(t.Context(), proxyProgram(t, "nginx"), "-c", file, "-g", "daemon off;"))
}

// startHAProxy starts HAProxy with the configuration in deploy/proxy.
func startHAProxy(t *testing.T, s *proxySetup) *child {
	t.Helper()
	content, err := os.ReadFile("../../deploy/proxy/haproxy.cfg")
	require.NoError(t, err)
	s.writeCertificate(t)
	s.routes = s.stream // one port for both
	file := s.configure(t, string(content),
		"user haproxy", "",
		"group haproxy", "",
		"chroot /var/lib/haproxy", "",
		"log /dev/log local0", "",
		"log global", "no log",
		"maxconn 20000", "maxconn 1000",
		"/etc/ssl/controller/", s.dir+"/",
		"server controller 127.0.0.1:50051 ", "server controller "+s.grpc+" ",
		"bind :50052 ", "bind "+s.stream+" ",
		"bind :8443 ", "bind "+s.secure+" ",
	)
	return startChild(t, exec.CommandContext(t.Context(), proxyProgram(t, "haproxy"), "-db", "-f", file))
}

// proxyProgram finds a proxy, including where Debian installs it outside the PATH of users.
func proxyProgram(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		path, err = exec.LookPath("/usr/sbin/" + name)
	}
	require.NoError(t, err, "%s is needed: tools/require proxies installs it on Debian", name)
	return path
}

// connectionsTo counts the connections to a local address, as the kernel lists them.
func connectionsTo(t *testing.T, addr string) int {
	t.Helper()
	_, port, err := net.SplitHostPort(addr)
	require.NoError(t, err)
	number, err := strconv.ParseUint(port, 10, 16)
	require.NoError(t, err)
	remote := fmt.Sprintf(":%04X", number)
	table, err := os.ReadFile("/proc/net/tcp")
	require.NoError(t, err, "connections are counted on Linux")
	n := 0
	for line := range strings.Lines(string(table)) {
		fields := strings.Fields(line)                                 // number, local, remote, state
		if strings.HasSuffix(fields[2], remote) && fields[3] == "01" { // established
			n++
		}
	}
	return n
}
