package faults

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// The controller is killed, again and again, while commands are accepted and acked.
// All that were accepted end, and those that have the time and deliveries left succeed;
// none is delivered after its deadline, or more often than max_deliveries and once for
// each kill: what was under way at a kill may have arrived.
func testKilledController(t *testing.T) {
	const rounds, maxDeliveries, enough = 5, 3, time.Minute
	random := seeded(t)
	c := startController(t)
	seen := map[string]*sightings{}
	for _, vm := range []string{"vm-1", "vm-2", "vm-3"} {
		client := &http.Client{Transport: newTransport(t)}
		a := startPersistentAgentOn(t, client, "http://"+c.addr, vm, 20*time.Millisecond, 30*time.Millisecond)
		seen[vm] = a.watch(t)
	}
	var accepted []*record
	for round := range rounds {
		victim := c.child
		killed := time.AfterFunc(time.Duration(200+random.IntN(400))*time.Millisecond, victim.kill)
		for n := 0; ; n++ {
			vm := fmt.Sprintf("vm-%d", random.IntN(3)+1)
			r, err := c.trySend(t.Context(), vm, fmt.Sprintf("round-%d-%d", round, n),
				withTTL([]time.Duration{time.Second, enough}[random.IntN(2)]), withAckTimeout(2*time.Second), withMaxDeliveries(maxDeliveries))
			if err != nil {
				break
			}
			accepted = append(accepted, r)
			<-time.After(time.Duration(random.IntN(20)) * time.Millisecond) // a sender's rest
		}
		killed.Stop()
		victim.kill()
		c.start(t)
	}
	require.NotEmpty(t, accepted)
	for _, r := range accepted {
		id, deadline := r.GetCommand().GetId(), r.GetExpiresAt().AsTime()
		await(t, func() bool { return c.command(t, id).GetFinishedAt() != nil }, "%s does not end", id)
		ended := c.command(t, id)
		if deadline.Sub(r.GetAcceptedAt().AsTime()) == enough && ended.GetAttempts() < maxDeliveries {
			require.Equal(t, succeeded, ended.GetState(), ended)
		}
		require.LessOrEqual(t, ended.GetAttempts(), int32(maxDeliveries+rounds))
		at := seen[r.GetVmId()].of(id)
		require.LessOrEqual(t, len(at), maxDeliveries+rounds, id)
		for _, received := range at {
			require.True(t, received.Before(deadline.Add(500*time.Millisecond)), "%s was received at %s, its deadline was %s", id, received, deadline)
		}
	}
	t.Logf("%d commands accepted", len(accepted))
}

// sightings are when an agent was sent its commands.
type sightings struct {
	mu sync.Mutex
	at map[string][]time.Time
}

// watch notes what the agent is sent, until the test ends.
func (a *persistentAgent) watch(t *testing.T) *sightings {
	t.Helper()
	s, done := &sightings{at: map[string][]time.Time{}}, t.Context().Done()
	var running sync.WaitGroup
	running.Go(func() {
		for {
			select {
			case id := <-a.received:
				s.mu.Lock()
				s.at[id] = append(s.at[id], time.Now())
				s.mu.Unlock()
			case <-done:
				return
			}
		}
	})
	t.Cleanup(running.Wait)
	return s
}

func (s *sightings) of(id string) []time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.at[id]
}

// seeded makes the choices of a scenario. FAULTS_SEED repeats those of an earlier
// run; when exactly a process dies it cannot repeat.
func seeded(t *testing.T) *rand.Rand {
	t.Helper()
	seed := uint64(time.Now().UnixNano())
	if given := os.Getenv("FAULTS_SEED"); given != "" {
		var err error
		seed, err = strconv.ParseUint(given, 10, 64)
		require.NoError(t, err, "FAULTS_SEED must be a whole number")
	}
	t.Logf("FAULTS_SEED=%d", seed)
	return rand.New(rand.NewPCG(seed, 0))
}
