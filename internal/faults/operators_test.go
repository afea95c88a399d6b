package faults

import (
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"net"
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
	"github.com/mig-controller/mig-controller/gen/go/miglet/commands"
	"github.com/mig-controller/mig-controller/internal/testkit"
)

// Somebody guesses tokens. Valid callers from the same address are served as before, guesses
// are soon refused without being looked at, and neither the log nor the audit grows with them.
func testAccessGuessing(t *testing.T) {
	const guessers, each = 4, 150
	c, root := startWithAdmin(t)
	started := time.Now()
	type guesses struct{ wrong, refused int64 }
	done := make(chan guesses, guessers)
	for range guessers {
		transport := newTransport(t)
		go func() {
			var g guesses
			for range each {
				guess := callerAt("http://"+c.addr, &http.Client{Transport: tokenTransport{"migc_" + rand.Text() + "AAAAAAA", transport}})
				_, err := guess.GetVM(t.Context(), &migcontrollerv1.GetVMRequest{VmId: "vm-1"})
				if connect.CodeOf(err) == connect.CodeUnauthenticated {
					g.wrong++
				}
				if connect.CodeOf(err) == connect.CodeResourceExhausted {
					g.refused++
				}
			}
			done <- g
		}()
	}
	var all guesses
	served := 0
	for ended := 0; ended < guessers; served++ {
		began := time.Now()
		c.send(t, "vm-1", "valid-"+rand.Text())
		require.Less(t, time.Since(began), unblocked)
		select {
		case g := <-done:
			all.wrong, all.refused = all.wrong+g.wrong, all.refused+g.refused
			ended++
		default:
		}
	}
	took := time.Since(started)
	rejections := 2 * (2 + int(took/time.Minute)) // one for each reason and minute
	require.Greater(t, served, 5)
	require.EqualValues(t, guessers*each, all.wrong+all.refused)
	require.GreaterOrEqual(t, all.wrong, int64(20))
	require.LessOrEqual(t, all.wrong, 21+int64(took/(5*time.Second)), "20, and one in five seconds")
	require.LessOrEqual(t, len(c.out.lines(ofMessage("requests rejected; others of this address and reason within a minute are only counted"))), rejections)
	c.terminate(t) // what is counted is stored
	c.start(t)
	counted, rows := guesses{}, 0
	for _, e := range root.audit(t) {
		switch e.GetOutcome() {
		case "unauthenticated":
			counted.wrong += e.GetCount()
		case "resource_exhausted":
			counted.refused += e.GetCount()
		default:
			require.Equal(t, "ok", e.GetOutcome())
			continue
		}
		rows++
		require.Equal(t, "127.0.0.1", e.GetAddress())
		require.Equal(t, "AdminService/GetVM", e.GetAction())
	}
	require.Equal(t, all, counted)
	require.LessOrEqual(t, rows, rejections)
}

// An admin revokes a token while its holder watches and waits. Both end at once, and the next
// call is rejected.
func testAccessRevoked(t *testing.T) {
	c, root := startWithAdmin(t)
	token, secret := root.create(t, "leaver", migcontrollerv1.Role_ROLE_OPERATOR)
	leaver := c.caller(t, secret)
	stream, err := leaver.WatchFleet(t.Context(), &migcontrollerv1.WatchFleetRequest{})
	require.NoError(t, err)
	defer stream.Close()
	require.True(t, stream.Receive(), stream.Err())
	watched, waited := make(chan error, 1), make(chan error, 1)
	go func() {
		for stream.Receive() { // until it ends
		}
		watched <- stream.Err()
	}()
	go func() {
		_, err := leaver.SendCommand(t.Context(), &sendRequest{
			VmId: "vm-never", Command: &commands.Command{Id: "awaited", Type: "drain"}, Wait: durationpb.New(time.Minute),
		})
		waited <- err
	}()
	await(t, func() bool { return len(c.commands(t, "vm-never")) == 1 }, "no command is sent")

	began := time.Now()
	root.revoke(t, token.GetId())
	require.Equal(t, connect.CodeUnauthenticated, leaver.code(t))
	require.Less(t, time.Since(began), time.Second)
	err = requireSoon(t, watched)
	require.Equal(t, connect.CodeUnauthenticated, connect.CodeOf(err), err)
	require.ErrorContains(t, err, "the credentials have expired or were revoked during the call")
	require.NoError(t, requireSoon(t, waited), "the command was accepted: its record says that it is open")
	require.Equal(t, pending, c.command(t, "awaited").GetState())
	require.Equal(t, "leaver", c.command(t, "awaited").GetRequestedBy())
	c.kill()
	c.start(t)
	require.Equal(t, connect.CodeUnauthenticated, leaver.code(t))
	require.Zero(t, root.code(t))
}

// requireSoon returns the end of a call, which must come within seconds.
func requireSoon(t *testing.T, ended <-chan error) error {
	t.Helper()
	select {
	case err := <-ended:
		return err
	case <-time.After(5 * time.Second):
		require.FailNow(t, "a watch or a wait continues")
		return nil
	}
}

// The last token is lost. The controller's user creates another one on its machine, also after
// the controller was killed, when its socket is still there.
func testAccessLostToken(t *testing.T) {
	c, lost := startWithAdmin(t)
	lost.revoke(t, lost.who(t).GetTokenId())
	require.Equal(t, connect.CodeUnauthenticated, c.caller(t, "").code(t), "a token was created once")
	require.Zero(t, c.createAdmin(t, "second").code(t))
	socket := filepath.Join(c.dataDir(t), "_state", "control.sock")
	before := requirePrivateSocket(t, socket)

	c.kill()
	_, stderr, err := c.tryCreateAdmin(t, "nobody")
	require.Error(t, err)
	require.Contains(t, stderr, "cannot reach the controller at unix://")
	require.FileExists(t, socket)
	c.start(t)
	require.False(t, os.SameFile(before, requirePrivateSocket(t, socket)), "the socket is not replaced")
	require.Equal(t, connect.CodeUnauthenticated, c.caller(t, "").code(t))
	third := c.createAdmin(t, "third")
	require.Equal(t, "third", third.who(t).GetName())
	c.terminate(t)
	require.NoFileExists(t, socket)
	_, stderr, err = c.tryCreateAdmin(t, "nobody")
	require.Error(t, err)
	require.Contains(t, stderr, "no controller is running with the data directory")
}

// requirePrivateSocket requires that a socket is only for its owner.
func requirePrivateSocket(t *testing.T, path string) os.FileInfo {
	t.Helper()
	info, err := os.Lstat(path)
	require.NoError(t, err)
	require.Equal(t, os.ModeSocket|0o600, info.Mode())
	return info
}

// writeConfig writes a configuration file, and returns the option for it.
func writeConfig(t *testing.T, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "controller.yaml")
	require.NoError(t, os.WriteFile(file, []byte(text), 0o600))
	return "--config=" + file
}

// An issuer of identity tokens is down when the controller starts, and later. Only its tokens
// that were not seen before are concerned, and only until it is back.
func testAccessIssuerDown(t *testing.T) {
	addr := freePorts(t, 1)[0]
	issuer := testkit.NewIssuer(t, "http://"+addr)
	c, root := startWithAdmin(t, issuerConfig(t, "http://"+addr))
	claims := map[string]any{"aud": "migctl", "sub": "ann"}
	ann := c.caller(t, issuer.Token(t, claims))
	for range 30 { // which is not guessing
		require.Equal(t, connect.CodeUnavailable, ann.code(t), "try again later")
	}
	require.Zero(t, root.code(t))
	c.awaitLine(t, `"level":"WARN"`, addr)
	status, _ := c.get(t, "/ready")
	require.Equal(t, http.StatusOK, status)

	stop := serveAt(t, addr, issuer)
	awaitFor(t, 10*time.Second, func() bool { return ann.code(t) == 0 }, "the issuer is back, and its tokens are rejected")
	require.Equal(t, "ann", ann.who(t).GetName())
	require.Equal(t, connect.CodePermissionDenied, connect.CodeOf(ann.trySend(t, "vm-1")))

	stop()
	require.Zero(t, ann.code(t), "it is known")
	require.Zero(t, c.caller(t, issuer.Token(t, map[string]any{"aud": "migctl", "sub": "ben"})).code(t), "the keys are known")
	require.Equal(t, connect.CodeUnauthenticated, c.caller(t, issuer.Token(t, map[string]any{"aud": "other", "sub": "ann"})).code(t))
	c.kill()
	c.start(t)
	require.Equal(t, connect.CodeUnavailable, ann.code(t))
	serveAt(t, addr, issuer)
	awaitFor(t, 10*time.Second, func() bool { return ann.code(t) == 0 }, "after a restart its tokens are rejected")
}

// trySend sends a command.
func (c caller) trySend(t *testing.T, vm string) error {
	t.Helper()
	_, err := c.SendCommand(t.Context(), &sendRequest{VmId: vm, Command: &commands.Command{Type: "set_log_level"}})
	return err
}

// serveAt serves at an address until stop is called, or the test ends.
func serveAt(t *testing.T, addr string, handler http.Handler) (stop func()) {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", addr)
	require.NoError(t, err)
	server := &http.Server{Handler: handler, ReadHeaderTimeout: time.Minute}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = server.Serve(l) // until it is closed
	}()
	stop = func() {
		_ = server.Close()
		<-ended
	}
	t.Cleanup(stop)
	return stop
}

// The CA of operators' certificates is replaced while the controller runs. Certificates of the
// former CA are rejected, on connections that are open too.
func testAccessCAReplaced(t *testing.T) {
	dir := t.TempDir()
	file := func(name string) string { return filepath.Join(dir, name) }
	identity := testkit.NewIdentity(t, testkit.FarOff)
	identity.Write(t, file("cert.pem"), file("key.pem"))
	former, next := testkit.NewCA(t, "former", testkit.FarOff), testkit.NewCA(t, "next", testkit.FarOff)
	require.NoError(t, os.WriteFile(file("ca.pem"), former.PEM, 0o600))
	c := startController(t, "--tls-cert="+file("cert.pem"), "--tls-key="+file("key.pem"), "--operator-client-ca="+file("ca.pem"),
		writeConfig(t, "operators:\n  certificates:\n    - cn: '*'\n      role: operator\n"))
	with := func(ca testkit.CA) caller {
		transport := &http.Transport{ForceAttemptHTTP2: true, TLSClientConfig: identity.Trusts("h2")}
		transport.TLSClientConfig.Certificates = []tls.Certificate{ca.Client(t, x509.Certificate{Subject: pkix.Name{CommonName: "ann"}})}
		t.Cleanup(transport.CloseIdleConnections)
		return callerAt("https://"+c.addr, &http.Client{Transport: transport})
	}
	ann := with(former)
	require.Equal(t, migcontrollerv1.AuthMethod_AUTH_METHOD_CERTIFICATE, ann.who(t).GetMethod())
	require.NotZero(t, with(next).code(t), "its CA is not known")

	require.NoError(t, os.WriteFile(file("new.pem"), next.PEM, 0o600))
	require.NoError(t, os.Rename(file("new.pem"), file("ca.pem")))
	began := time.Now()
	renewed := caller{}
	awaitFor(t, 15*time.Second, func() bool { renewed = with(next); return renewed.code(t) == 0 }, "the new CA is not read")
	require.Equal(t, "ann", renewed.who(t).GetName())
	_, err := ann.access.WhoAmI(t.Context(), &migcontrollerv1.WhoAmIRequest{})
	require.Equal(t, connect.CodeUnauthenticated, connect.CodeOf(err), "on the open connection: %v", err)
	require.ErrorContains(t, err, "not signed by a CA that this controller trusts")
	require.NotZero(t, with(former).code(t), "on a new connection")
	t.Logf("replaced in %s", time.Since(began))
}

// connectIn opens a session of a VM in a pool.
func (c *controller) connectIn(t *testing.T, vm, pool string) {
	t.Helper()
	openAs(t, dial(t, c.addr), &commands.ConnectRequest{VmId: vm, PoolId: pool, Version: "1.0"}).accepted(t)
}

// A token that is limited to a pool sees and touches the VMs in it, and no others. A VM that
// moves to another pool is removed from the watch, and the wait for its command ends.
func testAccessPools(t *testing.T) {
	c, root := startWithAdmin(t)
	c.connectIn(t, "vm-linux", "linux")
	c.connectIn(t, "vm-mac", "mac")
	_, secret := root.create(t, "linux-bot", migcontrollerv1.Role_ROLE_OPERATOR, "linux")
	bot := c.caller(t, secret)
	c.send(t, "vm-mac", "of-mac")

	list, err := bot.ListVMs(t.Context(), &migcontrollerv1.ListVMsRequest{})
	require.NoError(t, err)
	require.Len(t, list.GetVms(), 1)
	require.Equal(t, "vm-linux", list.GetVms()[0].GetVmId())
	for what, call := range map[string]func() error{
		"GetVM": func() error {
			_, err := bot.GetVM(t.Context(), &migcontrollerv1.GetVMRequest{VmId: "vm-mac"})
			return err
		},
		"SendCommand": func() error { return bot.trySend(t, "vm-mac") },
		"never seen":  func() error { return bot.trySend(t, "vm-never") },
		"CancelCommand": func() error {
			_, err := bot.CancelCommand(t.Context(), &migcontrollerv1.CancelCommandRequest{CommandId: "of-mac"})
			return err
		},
		"GetCommand": func() error {
			_, err := bot.GetCommand(t.Context(), &migcontrollerv1.GetCommandRequest{CommandId: "of-mac"})
			return err
		},
	} {
		require.Equal(t, connect.CodeNotFound, connect.CodeOf(call()), what)
	}
	_, err = bot.SetLogLevel(t.Context(), &migcontrollerv1.SetLogLevelRequest{Level: migcontrollerv1.LogLevel_LOG_LEVEL_DEBUG})
	require.Equal(t, connect.CodePermissionDenied, connect.CodeOf(err))
	require.Equal(t, pending, c.command(t, "of-mac").GetState())

	removed := bot.awaitRemoval(t)
	waited := make(chan error, 1)
	go func() {
		_, err := bot.SendCommand(t.Context(), &sendRequest{
			VmId: "vm-linux", Command: &commands.Command{Id: "awaited", Type: "drain"}, Wait: durationpb.New(time.Minute),
		})
		waited <- err
	}()
	await(t, func() bool { return len(c.commands(t, "vm-linux")) == 2 }, "no command is sent")
	c.connectIn(t, "vm-linux", "mac")
	require.Equal(t, "vm-linux", <-removed)
	err = requireSoon(t, waited)
	require.Equal(t, connect.CodeNotFound, connect.CodeOf(err), err)
	list, err = bot.ListVMs(t.Context(), &migcontrollerv1.ListVMsRequest{})
	require.NoError(t, err)
	require.Empty(t, list.GetVms())
	require.Equal(t, "linux-bot", c.command(t, "awaited").GetRequestedBy())
}

// awaitRemoval watches the fleet, and returns the first VM that leaves it; empty if anything of
// another VM is sent, or the watch ends.
func (c caller) awaitRemoval(t *testing.T) <-chan string {
	t.Helper()
	stream, err := c.WatchFleet(t.Context(), &migcontrollerv1.WatchFleetRequest{})
	require.NoError(t, err)
	t.Cleanup(func() { _ = stream.Close() })
	require.True(t, stream.Receive(), stream.Err())
	removed := make(chan string, 1)
	go func() {
		defer close(removed)
		for stream.Receive() {
			m := stream.Msg()
			if m.GetRemovedVmId() != "" {
				removed <- m.GetRemovedVmId()
				return
			}
			if strings.Contains(m.String(), "mac") {
				return
			}
		}
	}()
	return removed
}
