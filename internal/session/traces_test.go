package session

import (
	"log/slog"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/attribute"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/mig-controller/mig-controller/internal/fleet"
	"github.com/mig-controller/mig-controller/internal/store/memory"
	"github.com/mig-controller/mig-controller/internal/tracing"
)

// spans records spans.
type spans struct {
	*tracetest.SpanRecorder
	commands *tracing.Commands
}

// recordSpans returns the spans of a Commands with this sampler for spans without links.
func recordSpans(sampler sdktrace.Sampler) spans {
	r := tracetest.NewSpanRecorder()
	provider := func(s sdktrace.Sampler) *sdktrace.TracerProvider {
		return sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(r), sdktrace.WithSampler(s))
	}
	return spans{r, tracing.NewCommands(provider(sampler), provider(sdktrace.AlwaysSample()))}
}

func (s spans) option(_ *system, o *Options) { o.Traces = s.commands }

// take returns the only span of a command with this name.
func (s spans) take(t *testing.T, name string, id fleet.CommandID) sdktrace.ReadOnlySpan {
	t.Helper()
	of := s.all(name, id)
	require.Len(t, of, 1, "%s of %s", name, id)
	return of[0]
}

// all returns the spans of a command with this name, once those that were begun have ended.
func (s spans) all(name string, id fleet.CommandID) (of []sdktrace.ReadOnlySpan) {
	synctest.Wait()
	for _, span := range s.Ended() {
		if span.Name() == name && attributeOf(span, "command_id") == string(id) {
			of = append(of, span)
		}
	}
	return of
}

func attributeOf(s sdktrace.ReadOnlySpan, key attribute.Key) string {
	for _, a := range s.Attributes() {
		if a.Key == key {
			return a.Value.String()
		}
	}
	return ""
}

// links returns what a span is linked to.
func links(s sdktrace.ReadOnlySpan) (to []string) {
	for _, l := range s.Links() {
		to = append(to, tracing.Parent(l.SpanContext))
	}
	return to
}

// sendTraced accepts a command for vm-1 in a span, like control, and returns the Parent of the span.
func (s *system) sendTraced(from spans, id string) string {
	s.Helper()
	c, err := fleet.CommandRequest{ID: id, VM: "vm-1", Type: "drain", TTL: 24 * time.Hour}.Accept(defaults, clock())
	require.NoError(s, err)
	ctx, span := from.commands.Accept(s.Context(), &c)
	c, err = s.store.Accept(ctx, c)
	require.NoError(s, err)
	span.Accepted(&c, err)
	return c.Trace
}

// A delivery is linked to the acceptance, and an ack to both, however much time has passed and
// although the controller was restarted in between. Each is a trace of its own.
func TestSpansAreLinked(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		recorded := recordSpans(sdktrace.AlwaysSample())
		path := filepath.Join(t.TempDir(), "controller.db")
		s := newSystemOn(t, openFile(t, path), recorded.option)
		accepted := s.sendTraced(recorded, "c1")
		s.Close()
		require.NoError(t, s.store.Close())
		time.Sleep(20 * time.Hour) // fake clock
		s.open(openFile(t, path))
		s.start(recorded.option)
		a := s.connect("vm-1")
		require.Equal(t, fleet.CommandID("c1"), a.next().ID)
		time.Sleep(5 * time.Second) // fake clock
		a.ack("c1", true)
		a.ack("c1", true) // repeated: no span

		accept, deliver, ack := recorded.take(t, "command accept", "c1"), recorded.take(t, "command deliver", "c1"), recorded.take(t, "command ack", "c1")
		require.Equal(t, accepted, tracing.Parent(accept.SpanContext()))
		require.Equal(t, []string{accepted}, links(deliver))
		require.Equal(t, []string{accepted, tracing.Parent(deliver.SpanContext())}, links(ack))
		require.Equal(t, 20*time.Hour, deliver.StartTime().Sub(accept.StartTime()).Truncate(time.Second))
		require.Equal(t, 5*time.Second, ack.StartTime().Sub(deliver.EndTime()).Truncate(time.Second))
		traces := []string{accept.SpanContext().TraceID().String(), deliver.SpanContext().TraceID().String(), ack.SpanContext().TraceID().String()}
		slices.Sort(traces)
		require.Len(t, slices.Compact(traces), 3)
		for key, want := range map[attribute.Key]string{
			"vm_id": "vm-1", "command_type": "drain", "pool_id": "pool", "session_epoch": "1", "attempt": "1", "via": "stream",
		} {
			require.Equal(t, want, attributeOf(deliver, key), key)
		}
		require.Equal(t, "true", attributeOf(ack, "success"))
		require.Equal(t, "SUCCEEDED", attributeOf(ack, "state"))
	})
}

// Spans are by the clock of the SDK, from which that for the times of records differs after a
// step of the wall clock.
func TestSpanOfAnAckHasOneClock(t *testing.T) {
	t.Parallel()
	for name, ahead := range map[string]time.Duration{"ahead": time.Hour, "behind": -time.Hour} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				recorded := recordSpans(sdktrace.AlwaysSample())
				s := newSystem(t, recorded.option, func(_ *system, o *Options) {
					o.Clock = func() time.Time { return clock().Add(ahead) }
				})
				id := s.connect("vm-1").next(true).ID
				ack := recorded.take(t, "command ack", id)
				require.Equal(t, recorded.take(t, "command deliver", id).EndTime(), ack.StartTime())
				require.Equal(t, ack.StartTime(), ack.EndTime())
			})
		})
	}
}

// The spans of a command that the controller creates begin with its delivery.
func TestSpansOfRegisterRunner(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		recorded := recordSpans(sdktrace.AlwaysSample())
		s := newSystem(t, recorded.option)
		a := s.connect("vm-1")
		id := a.next(true).ID
		deliver, ack := recorded.take(t, "command deliver", id), recorded.take(t, "command ack", id)
		require.Empty(t, links(deliver))
		require.Equal(t, []string{tracing.Parent(deliver.SpanContext())}, links(ack))
		for _, span := range recorded.Ended() {
			for _, a := range span.Attributes() {
				require.NotContains(t, a.Value.String(), secret)
			}
		}
	})
}

// Whether a command is sampled is decided when it is accepted: all of its spans are exported,
// or none.
func TestSpansAreSampledTogether(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		never, always := recordSpans(sdktrace.NeverSample()), recordSpans(sdktrace.AlwaysSample())
		s := newSystem(t, never.option)
		require.NotEmpty(t, s.sendTraced(never, "dropped"), "the record says that it is not sampled")
		s.sendTraced(always, "sampled")
		a := s.connect("vm-1")
		for _, id := range []fleet.CommandID{"dropped", "sampled"} {
			require.Equal(t, id, a.next(true).ID)
		}
		id := a.next(true).ID // register_runner
		require.Len(t, never.Ended(), 2, "the delivery and the ack of the sampled one")
		never.take(t, "command deliver", "sampled")
		never.take(t, "command ack", "sampled")
		require.Empty(t, never.all("command deliver", id))
	})
}

// Each delivery has its own span. One that fails is marked, and the ack is linked to the one
// that it answers.
func TestSpanOfEachDelivery(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		recorded := recordSpans(sdktrace.AlwaysSample())
		s := newSystemOn(t, memory.New(), recorded.option)
		accepted := s.sendTraced(recorded, "c1")
		first := s.connect("vm-1")
		require.Equal(t, fleet.CommandID("c1"), first.next().ID)
		synctest.Wait() // until the session knows that it was written in full
		second := s.connect("vm-1")
		require.Equal(t, fleet.CommandID("c1"), second.next().ID)
		second.ack("c1", true)
		deliveries := recorded.all("command deliver", "c1")
		require.Len(t, deliveries, 2)
		require.Equal(t, []string{accepted, tracing.Parent(deliveries[1].SpanContext())}, links(recorded.take(t, "command ack", "c1")))
		require.Equal(t, "2", attributeOf(deliveries[1], "attempt"))
	})
}

// A command that is handed to a poll has a span of its delivery too.
func TestSpanOfAPoll(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		recorded := recordSpans(sdktrace.AlwaysSample())
		s := newSystem(t, recorded.option)
		accepted := s.sendTraced(recorded, "c1")
		leases, err := s.Poll(t.Context(), "vm-1")
		require.NoError(t, err)
		require.Len(t, leases, 1)
		deliver := recorded.take(t, "command deliver", "c1")
		require.Equal(t, []string{accepted}, links(deliver))
		require.Equal(t, "http", attributeOf(deliver, "via"))
	})
}

// The log has the addresses of the agents of a VM, so that operators find those that compete.
func TestPeersInTheLog(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSystem(t)
		first, second := s.connect("vm-1"), s.connect("vm-1")
		connected := s.log.of("agent connected")
		require.Equal(t, first.stream.Peer(), connected[0]["peer"])
		require.Equal(t, second.stream.Peer(), connected[1]["peer"])
		require.Equal(t, first.stream.Peer(), s.log.of("session superseded by a newer one of the same VM")[0]["peer"])
	})
}

// All lines of a session have its id, which no other session has.
func TestSessionID(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSystem(t, func(s *system, o *Options) {
			o.Log = slog.New(slog.NewJSONHandler(s.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
		})
		ids := map[any]bool{}
		for n := range 3 {
			a := s.connect("vm-1")
			a.event("job_started")
			a.beat("idle")
			a.quit()
			connected := s.log.of("agent connected")[n]["session_id"]
			require.Regexp(t, "^ses-[a-z2-7]{16}$", connected)
			for _, message := range []string{"event received", "heartbeat received", "agent disconnected"} {
				require.Equal(t, connected, s.log.of(message)[n]["session_id"], message)
			}
			ids[connected] = true
		}
		require.Len(t, ids, 3)
	})
}
