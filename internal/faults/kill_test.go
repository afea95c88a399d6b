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

// The controller is killed, again and again, while commands are accepted and acked. All
// accepted commands end, and those with time and deliveries left succeed; none is delivered
// after its deadline, or more often than max_deliveries.
func testKilledController(t *testing.T) {
	const rounds, maxDeliveries, enough = 5, 2, time.Minute
	seed := seedOf(t)
	c := startController(t)
	seen := map[string]*sightings{}
	for vm, think := range map[string]time.Duration{"vm-1": 30 * time.Millisecond, "vm-2": 30 * time.Millisecond, "vm-3": never} {
		client := &http.Client{Transport: newTransport(t)}
		seen[vm] = startPersistentAgentOn(t, client, "http://"+c.addr, vm, 20*time.Millisecond, think).watch(t)
	}
	// It is delivered in each run of the controller, until its limit is reached.
	unacked := c.send(t, "vm-3", "unacked", withAckTimeout(5*time.Second), withMaxDeliveries(maxDeliveries))
	var accepted []*record
	for round := range uint64(rounds) {
		random := rand.New(rand.NewPCG(seed, round))
		victim := c.child
		killed := time.AfterFunc(time.Duration(200+random.IntN(400))*time.Millisecond, victim.kill)
		for n := 0; ; n++ {
			vm := fmt.Sprintf("vm-%d", random.IntN(2)+1)
			r, err := c.trySend(t.Context(), vm, fmt.Sprintf("round-%d-%d", round, n),
				withTTL([]time.Duration{time.Second, enough}[random.IntN(2)]), withAckTimeout(2*time.Second), withMaxDeliveries(maxDeliveries))
			if err != nil {
				break
			}
			accepted = append(accepted, r)
			<-time.After(time.Duration(random.IntN(20)) * time.Millisecond) // a sender's pause
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
		require.LessOrEqual(t, ended.GetAttempts(), int32(maxDeliveries))
		at := seen[r.GetVmId()].of(id)
		require.LessOrEqual(t, len(at), maxDeliveries, id)
		for _, received := range at {
			require.True(t, received.Before(deadline.Add(500*time.Millisecond)), "%s was received at %s, its deadline was %s", id, received, deadline)
		}
	}
	require.EqualValues(t, maxDeliveries, c.awaitEnd(t, unacked.GetCommand().GetId(), timedOut).GetAttempts())
	require.LessOrEqual(t, len(seen["vm-3"].of(unacked.GetCommand().GetId())), maxDeliveries)
	t.Logf("%d commands accepted", len(accepted))
}

// sightings are the times at which an agent received its commands.
type sightings struct {
	mu sync.Mutex
	at map[string][]time.Time
}

// watch records what the agent receives, until the test ends.
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

// seedOf returns the random seed of a scenario. FAULTS_SEED repeats an earlier run, except
// for the exact time at which a process is killed.
func seedOf(t *testing.T) uint64 {
	t.Helper()
	seed := uint64(time.Now().UnixNano())
	if given := os.Getenv("FAULTS_SEED"); given != "" {
		var err error
		seed, err = strconv.ParseUint(given, 10, 64)
		require.NoError(t, err, "FAULTS_SEED must be a whole number")
	}
	t.Logf("FAULTS_SEED=%d", seed)
	return seed
}
