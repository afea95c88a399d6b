package app

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/internal/fleet"
	"github.com/mig-controller/mig-controller/internal/metric"
	"github.com/mig-controller/mig-controller/internal/session"
)

// BenchmarkScrape is a scrape while VMs are connected: it does not depend on their number.
func BenchmarkScrape(b *testing.B) {
	for _, vms := range []int64{200, 20_000} {
		b.Run(fmt.Sprintf("VMs=%d", vms), func(b *testing.B) {
			o := testOptions(b)
			o.Journal, o.RegistrationToken = false, "token"
			svc, err := newService(b.Context(), o, front{}, quiet(), metric.NewRegistry(), nil)
			require.NoError(b, err)
			b.Cleanup(func() { require.NoError(b, svc.Close()) })
			c, ok := svc.(*controller)
			require.True(b, ok)
			c.connectAll(b, vms)
			for b.Loop() {
				answer := httptest.NewRecorder()
				c.Handler().ServeHTTP(answer, httptest.NewRequestWithContext(b.Context(), http.MethodGet, "/metrics", http.NoBody))
				require.Equal(b, http.StatusOK, answer.Code)
			}
		})
	}
}

// connectAll connects this many VMs of twenty pools until the end of the benchmark, and waits
// until each has got its first command.
func (c *controller) connectAll(b *testing.B, vms int64) {
	b.Helper()
	var agents, connected sync.WaitGroup
	end := make(chan struct{})
	b.Cleanup(func() {
		close(end)
		agents.Wait()
	})
	connected.Add(int(vms))
	for n := range vms {
		agents.Go(func() {
			hello := ephemeral{c, int(n)}.hello()
			hello.Pool = string(rune('a' + n%20))
			s, err := c.sessions.Open(b.Context(), hello, acceptingWire{make(chan fleet.CommandID, 10)})
			connected.Done()
			if err != nil {
				b.Errorf("VM %d: %v", n, err)
				return
			}
			<-end
			s.Close(&session.EndError{Cause: session.EndClosed})
		})
	}
	connected.Wait()
	require.Eventually(b, func() bool { return c.sessions.Stats().Delivered >= vms }, time.Minute, 10*time.Millisecond)
}
