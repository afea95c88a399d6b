package sim_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/internal/sim"
)

const registration = `{"status":"acknowledged","acknowledged":true,"registration_token":"` + secret +
	`","runner_url":"https://github.example/org","runner_group":"default","labels":["linux"]}`

// A build of November uses only HTTP.
func TestNov2025_LivesOverHTTP(t *testing.T) {
	t.Parallel()
	c := startController(t)
	c.answers <- `{"acknowledged":false}`
	c.answers <- registration
	cfg := quickKind(c, sim.Nov2025)
	cfg.Timing.Heartbeat = 50 * time.Millisecond
	cfg.Timing.JobEvery, cfg.Timing.JobLength = time.Millisecond, 100*time.Millisecond
	cfg.Timing.ReplaceAfter = 500 * time.Millisecond
	agent, result := start(t, cfg)
	for range 2 {
		post := within(t, c.posts, "vm_started")
		require.Equal(t, "vm_started", post["type"])
		require.Equal(t, "vm-1", post["vm_id"])
		require.Equal(t, "vm-1", post["path_vm_id"])
		require.Equal(t, "dev", post["version"])
		for _, member := range []string{"machine_type", "region", "cpu", "memory", "disk"} {
			require.Contains(t, post, member)
		}
		stamp, _ := post["timestamp"].(string)
		_, err := time.Parse(time.RFC3339, stamp)
		require.NoError(t, err)
	}
	registered := within(t, c.posts, "runner_registered")
	require.Equal(t, "runner_registered", registered["type"])
	require.Equal(t, "default", registered["runner_group"])
	require.Equal(t, []any{"linux"}, registered["labels"])
	h := within(t, c.beats, "a heartbeat")
	require.Equal(t, "job_heartbeat", h["type"])
	require.NotContains(t, h, "miglet_state")
	require.Contains(t, h["vm_health"], "disk_total")
	require.Equal(t, "job_started", within(t, c.posts, "job_started")["type"])
	require.Equal(t, "job_completed", within(t, c.posts, "job_completed")["type"])
	require.ErrorIs(t, within(t, result, "the end of the agent"), sim.ErrReplaced)

	require.Empty(t, c.sessions)
	got := agent.Snapshot()
	require.EqualValues(t, 1, got.VMStarted)
	require.EqualValues(t, 4, got.Events)
	require.Equal(t, got.Events+got.Heartbeats, got.Posts)
	require.Equal(t, map[string]int64{"vm_started": 1}, got.Errors)
	require.Zero(t, got.Registered)
}

// Without a token the process exits and is restarted.
func TestNov2025_ExitsWithoutARegistration(t *testing.T) {
	t.Parallel()
	for name, answer := range map[string]string{
		"no token": `{"status":"acknowledged","acknowledged":true,"runner_url":"https://github.example/org"}`,
		"no URL":   `{"status":"acknowledged","acknowledged":true,"registration_token":"` + secret + `"}`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := startController(t)
			c.answers <- answer
			c.answers <- registration
			cfg := quickKind(c, sim.Nov2025)
			cfg.Timing.Restart = 50 * time.Millisecond
			begin := time.Now()
			agent, _ := start(t, cfg)
			for range 2 {
				require.Equal(t, "vm_started", within(t, c.posts, "vm_started")["type"])
			}
			require.Greater(t, time.Since(begin), cfg.Timing.Restart, "systemd waits before it restarts the agent")
			require.Equal(t, "runner_registered", within(t, c.posts, "runner_registered")["type"])
			got := agent.Snapshot()
			require.EqualValues(t, 1, got.Restarts)
			require.Equal(t, map[string]int64{"register_runner": 1}, got.Errors)
		})
	}
}

// If the controller's answers to vm_started are useless, the agent gives up after five
// tries, and the process exits.
func TestNov2025_GivesUpWithoutAnAcknowledgement(t *testing.T) {
	t.Parallel()
	c := startController(t)
	for range 5 {
		c.answers <- `{"acknowledged":false}`
	}
	cfg := quickKind(c, sim.Nov2025)
	cfg.Timing.Restart = time.Hour
	agent, _ := start(t, cfg)
	for range 5 {
		within(t, c.posts, "vm_started")
	}
	require.Eventually(t, func() bool { return agent.Snapshot().Restarts == 1 }, patience, time.Millisecond)
	require.Empty(t, c.posts)
}
