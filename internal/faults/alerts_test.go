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

// Another program holds the write lock of the database.
func testAlertDatabaseBlocked(t *testing.T) {
	c := startController(t)
	c.startSim(t, "--vms=5", "--job-every=0", "--register-time=100ms", "--heartbeat-interval=500ms")
	p := startPrometheus(t, []string{c.url()})
	p.awaitQuiet(t)
	unlock := c.lock(t)
	p.awaitAlert(t, "MIGCommitsFail")
	p.awaitAlert(t, "MIGControllerNotReady", "check", "store")
	unlock()
	p.awaitEnd(t, "MIGControllerNotReady")
}

// Another program takes the write lock of the database for most of the time.
func testAlertSlowCommits(t *testing.T) {
	c := startController(t)
	c.startSim(t, "--vms=5", "--job-every=0", "--register-time=100ms", "--heartbeat-interval=500ms")
	p := startPrometheus(t, []string{c.url()})
	p.awaitQuiet(t)
	awaitFor(t, 2*patience, func() bool {
		unlock := c.lock(t)
		<-time.After(800 * time.Millisecond)
		unlock()
		return p.fires(t, "MIGCommitsSlow")
	}, "MIGCommitsSlow does not fire")
}

// lock takes the write lock of the database, as another program would, until the returned
// function is called.
func (c *controller) lock(t *testing.T) (unlock func()) {
	t.Helper()
	db := c.openDatabase(t)
	for _, statement := range []string{"PRAGMA busy_timeout(5000)", "BEGIN IMMEDIATE"} {
		_, err := db.ExecContext(t.Context(), statement)
		require.NoError(t, err)
	}
	return func() {
		_, err := db.ExecContext(t.Context(), "ROLLBACK")
		require.NoError(t, err)
		require.NoError(t, db.Close())
	}
}

// Agents do not register their runners, share their ids, and reopen their streams in a loop;
// and a row is damaged.
func testAlertAgents(t *testing.T) {
	c := startController(t)
	p := startPrometheus(t, []string{c.url()})
	p.awaitQuiet(t)
	options := []string{"--job-every=0", "--register-time=100ms", "--heartbeat-interval=500ms"}
	c.startSim(t, append(options, "--vms=5", "--vm-prefix=failing-", "--failed-registrations=100%")...)
	c.startSim(t, append(options, "--vms=10", "--vm-prefix=twin-", "--duplicate-ids=10")...)
	c.startSim(t, append(options, "--vms=5", "--vm-prefix=loop-", "--reopen-every=1s")...)
	c.send(t, "offline", "damaged")
	c.execute(t, "UPDATE commands SET doc = x'7b7b7b' WHERE id = 'damaged'")
	c.requireDataLoss(t, "damaged")
	p.awaitAlert(t, "MIGRowsDamaged", "class", "commands")
	for _, name := range []string{"MIGRegistrationsFail", "MIGAgentsCompete", "MIGReconnectStorm"} {
		p.awaitAlert(t, name)
	}
}

// The certificate expires.
func testAlertCertificateExpired(t *testing.T) {
	dir := t.TempDir()
	cert, key := filepath.Join(dir, "controller.pem"), filepath.Join(dir, "key.pem")
	const valid = 20 * time.Second // enough for both programs to start
	expires := time.Now().Add(valid).Truncate(time.Second)
	testkit.NewIdentity(t, expires).Write(t, cert, key)
	c := startController(t, "--tls-cert="+cert, "--tls-key="+key)
	p := startPrometheus(t, []string{"https://" + c.addr},
		"# tls_config:", "tls_config:", "#   ca_file: /etc/prometheus/controller.pem", "  ca_file: "+cert)
	a := p.awaitAlert(t, "MIGCertificateExpired")
	require.False(t, a.ActiveAt.Before(expires), "it fired at %s, before %s", a.ActiveAt, expires)
}
