package faults

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/internal/testkit"
)

// url is where Prometheus scrapes the controller.
func (c *controller) url() string { return "http://" + c.addr }

// All agents stop, and are started again; then the controller is killed.
func testAlertFleetLost(t *testing.T) {
	c := startController(t)
	agents := c.startSim(t, "--vms=10", "--job-every=0", "--register-time=100ms")
	p := startPrometheus(t, []string{c.url()})
	await(t, func() bool { return len(p.query(t, "sum(migcontroller_sessions) == 10")) == 1 }, "not all agents are connected")
	p.awaitQuiet(t)
	agents.kill()
	p.awaitAlert(t, "MIGFleetLost")
	c.startSim(t, "--vms=10", "--job-every=0", "--register-time=100ms")
	p.awaitEnd(t, "MIGFleetLost")
	c.kill()
	p.awaitAlert(t, "MIGControllerDown")
}

// The token file is removed, and is written again.
func testAlertToken(t *testing.T) {
	file := filepath.Join(t.TempDir(), "token")
	require.NoError(t, os.WriteFile(file, []byte("TOKEN"), 0o600))
	c := startController(t, "--registration-token-file="+file, "--runner-url=https://github.com/example/app")
	p := startPrometheus(t, []string{c.url()})
	p.awaitQuiet(t)
	require.NoError(t, os.Remove(file))
	p.awaitAlert(t, "MIGTokenFileInvalid")
	require.NoError(t, os.WriteFile(file, []byte("TOKEN"), 0o600))
	old := time.Now().Add(-time.Hour)
	require.NoError(t, os.Chtimes(file, old, old))
	p.awaitAlert(t, "MIGTokenFileOld")
	p.awaitEnd(t, "MIGTokenFileInvalid")
}

// Another program locks the database.
func testAlertDatabaseBlocked(t *testing.T) {
	c := startController(t)
	c.startSim(t, "--vms=5", "--job-every=0", "--register-time=100ms", "--heartbeat-interval=500ms")
	p := startPrometheus(t, []string{c.url()})
	p.awaitQuiet(t)
	conn, err := c.openDatabase(t).Conn(t.Context())
	require.NoError(t, err)
	defer conn.Close()
	_, err = conn.ExecContext(t.Context(), "PRAGMA busy_timeout(5000)")
	require.NoError(t, err)
	_, err = conn.ExecContext(t.Context(), "BEGIN IMMEDIATE")
	require.NoError(t, err)
	p.awaitAlert(t, "MIGCommitsFail")
	require.Equal(t, "store", p.awaitAlert(t, "MIGControllerNotReady").Labels["check"])
	p.awaitAlert(t, "MIGCommitsSlow")
	_, err = conn.ExecContext(t.Context(), "ROLLBACK")
	require.NoError(t, err)
	p.awaitEnd(t, "MIGControllerNotReady")
}

// The certificate expires.
func testAlertCertificateExpired(t *testing.T) {
	dir := t.TempDir()
	cert, key := filepath.Join(dir, "controller.pem"), filepath.Join(dir, "key.pem")
	expires := time.Now().Add(8 * time.Second).Truncate(time.Second)
	testkit.NewIdentity(t, expires).Write(t, cert, key)
	c := startController(t, "--tls-cert="+cert, "--tls-key="+key)
	p := startPrometheus(t, []string{"https://" + c.addr},
		"# tls_config:", "tls_config:", "#   ca_file: /etc/prometheus/controller.pem", "  ca_file: "+cert)
	a := p.awaitAlert(t, "MIGCertificateExpired")
	require.False(t, a.ActiveAt.Before(expires), "it fired at %s, before %s", a.ActiveAt, expires)
}
