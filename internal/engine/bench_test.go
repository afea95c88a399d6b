package engine

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/internal/fleet"
)

// BenchmarkEnqueue measures the gain of shared commits: the time per durable command, alone
// and with concurrent callers.
func BenchmarkEnqueue(b *testing.B) {
	for _, callers := range []int{1, 100} {
		b.Run(fmt.Sprintf("callers=%d", callers), func(b *testing.B) {
			r, _ := onDisk(b)
			b.SetParallelism(callers)
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					c := drain(b, string(fleet.NewCommandID()), "vm")
					if _, err := r.Accept(b.Context(), c); err != nil {
						b.Error(err)
					}
				}
			})
		})
	}
}

// BenchmarkEnqueueOffline measures a durable command for an offline VM that already has a
// long queue, with concurrent callers.
func BenchmarkEnqueueOffline(b *testing.B) {
	for _, waiting := range []int{0, 1000} {
		b.Run(fmt.Sprintf("waiting=%d", waiting), func(b *testing.B) {
			r, _ := onDisk(b)
			require.NoError(b, r.change(func(g *group) error {
				for i := range waiting {
					if _, err := g.reduce("vm", fleet.CommandAccepted{New: drain(b, name(i), "vm")}, t0); err != nil {
						return err
					}
				}
				return nil
			}))
			b.ResetTimer()
			b.SetParallelism(50)
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if _, err := r.Accept(b.Context(), drain(b, string(fleet.NewCommandID()), "vm")); err != nil {
						b.Error(err)
					}
				}
			})
		})
	}
}

// BenchmarkHeartbeats measures a durable heartbeat in a group of as many VMs with live
// sessions.
func BenchmarkHeartbeats(b *testing.B) {
	for _, vms := range []int{200, 1000} {
		b.Run(fmt.Sprintf("vms=%d", vms), func(b *testing.B) {
			r, _ := onDisk(b)
			now, load := t0, 12.5
			group := make([]fleet.Heartbeat, vms)
			for i := range group {
				vm := fleet.VMID(fmt.Sprintf("vm-%d", i))
				v := r.apply(fleet.SessionOpened{Hello: fleet.Hello{VM: vm, Pool: "pool-1"}}, now).State.VM
				group[i] = fleet.Heartbeat{
					Origin: fleet.Origin{VM: vm, Pool: "pool-1", Via: fleet.Stream, Epoch: v.Epoch},
					Status: "idle",
					Runner: &fleet.Runner{State: "idle", Configured: true, Name: string(vm), Labels: []string{"self-hosted", "linux"}},
					Health: &fleet.Health{CPUPercent: &load, MemoryPercent: &load, MemoryTotalBytes: 8 << 30, MemoryUsedBytes: 1 << 30},
				}
			}
			for b.Loop() {
				now = now.Add(50 * time.Millisecond)
				for i := range group {
					group[i].ReceivedAt = now
				}
				if err := r.RecordHeartbeats(b.Context(), group); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(group)), "ns/heartbeat")
		})
	}
}

// BenchmarkCommandLife measures a command from its acceptance to its ack, with 200
// concurrent VMs.
func BenchmarkCommandLife(b *testing.B) {
	r, _ := onDisk(b)
	var vms atomic.Int64
	b.SetParallelism(100)
	b.RunParallel(func(pb *testing.PB) {
		v := r.connect(fleet.VMID(fmt.Sprintf("vm-%d", vms.Add(1))), t0)
		var written fleet.CommandID
		for pb.Next() {
			c := drain(b, string(fleet.NewCommandID()), v.ID)
			_, err := r.Accept(b.Context(), c)
			require.NoError(b, err)
			written, err = r.next(v, written, t0)
			require.NoError(b, err)
			r.ack(written, v, t0)
			_, err = r.next(v, written, t0)
			require.ErrorIs(b, err, fleet.ErrNothingDue)
		}
	})
}

// BenchmarkCounting measures what the metrics add to an input: a command that is accepted and
// leased, its ack, and a heartbeat.
func BenchmarkCounting(b *testing.B) {
	r := inMemory(b)
	v := r.connect("vm", t0)
	c := drain(b, "c", "vm")
	leased, err := c.MarkDelivered(fleet.Delivery{Via: fleet.Stream, Epoch: v.Epoch, At: t0})
	require.NoError(b, err)
	acked, err := leased.MarkAcked(fleet.Ack{Success: true}, t0.Add(time.Second))
	require.NoError(b, err)
	idle, open := fleet.State{VM: v}, fleet.State{VM: v, Commands: []fleet.Command{leased}}
	for name, input := range map[string]struct {
		before fleet.State
		out    fleet.Outcome
	}{
		"accepted":  {idle, fleet.Outcome{State: open, Commands: []fleet.Command{leased}}},
		"acked":     {open, fleet.Outcome{State: idle, Commands: []fleet.Command{acked}}},
		"heartbeat": {idle, fleet.Outcome{State: idle}},
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				var t tally
				t.add(&input.before, &input.out)
				r.Engine.metrics.count(&t)
			}
		})
	}
}
