package audit

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/mig-controller/mig-controller/internal/auth"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var t0 = time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)

func fullEvent() Event {
	return Event{
		At: t0,
		By: auth.Principal{
			Name: "ci", Method: auth.ByToken, Role: auth.Operator, Scope: auth.OnlyPools("a", "b"), TokenID: "tok-1", ExpiresAt: t0.Add(time.Hour),
		},
		Address: "10.1.2.3", Action: "AdminService/SendCommand", VM: "vm-1", Command: "c-1", Detail: "drain",
		Outcome: "not_found", Error: "what went wrong", Reason: "because", RequestID: "req-1", Count: 3,
	}
}

// An event comes back from its JSON as it was, whatever its principal may see.
func TestJSON(t *testing.T) {
	t.Parallel()
	none, all := fullEvent(), fullEvent()
	none.By.Scope, all.By.Scope = auth.Scope{}, auth.AllPools()
	for _, e := range []Event{fullEvent(), none, all, {At: t0, Count: 1}} {
		text, err := json.Marshal(e)
		require.NoError(t, err)
		var back Event
		require.NoError(t, json.Unmarshal(text, &back))
		require.Equal(t, e.By.Scope.All(), back.By.Scope.All(), "a principal that sees nothing must not come back as one that sees all")
		require.Equal(t, e.By.Scope.String(), back.By.Scope.String())
		e.By.Scope, back.By.Scope = auth.Scope{}, auth.Scope{}
		require.Equal(t, e, back)
	}
	require.Error(t, json.Unmarshal([]byte(`{"count":"x"}`), new(Event)))
}

// An event is announced once, and not before it is durable.
func TestPendingIsAnnouncedOnce(t *testing.T) {
	t.Parallel()
	var announced []Event
	p := NewPending(Event{VM: "vm-1"}, func(e Event) { announced = append(announced, e) })
	require.Same(t, p, From(With(t.Context(), p)))
	p.Concerns("another", "c-1", "drain")
	p.Announce()
	require.Empty(t, announced)
	require.False(t, p.Recorded())
	made := p.Made("", "another", "another")
	require.Equal(t, Event{VM: "vm-1", Command: "c-1", Detail: "drain", Outcome: OK}, made, "what is known first is kept")
	p.MarkRecorded(made)
	require.True(t, p.Recorded())
	p.Announce()
	p.Announce()
	require.Equal(t, []Event{made}, announced)
}

// Code that works without a call in progress needs no checks.
func TestNoPending(t *testing.T) {
	t.Parallel()
	p := From(t.Context())
	require.Nil(t, p)
	p.Concerns("vm", "", "")
	p.Announce()
}

// A line has the fields that are known, and no others.
func TestLog(t *testing.T) {
	t.Parallel()
	var text bytes.Buffer
	log := slog.New(slog.NewTextHandler(&text, nil))
	Log(t.Context(), log, "audit", fullEvent())
	for _, part := range []string{
		"level=INFO", "msg=audit", "principal=ci", "method=token", "token_id=tok-1", "address=10.1.2.3", "action=AdminService/SendCommand",
		"vm_id=vm-1", "command_id=c-1", "detail=drain", "outcome=not_found", `error="what went wrong"`, "reason=because",
	} {
		require.Contains(t, text.String(), part)
	}
	text.Reset()
	Log(t.Context(), log, "audit", Event{Action: "a/b", Outcome: OK})
	require.Equal(t, 4, strings.Count(text.String(), "=")-1, text.String())
}

func TestShorten(t *testing.T) {
	t.Parallel()
	require.Equal(t, "ä", Shorten("ä"))
	require.Equal(t, strings.Repeat("ä", MaxText), Shorten(strings.Repeat("ä", MaxText)+"b"))
	require.Equal(t, "a\uFFFD", Shorten("a\xff"))
}

// recorder is a Recorder in memory.
type recorder struct {
	mu     sync.Mutex
	events []Event
	calls  int
	err    error
}

func (r *recorder) RecordAudit(_ context.Context, events ...Event) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.calls++
	if r.err != nil {
		return r.err
	}
	r.events = append(r.events, events...)
	return nil
}

func (r *recorder) fail(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.err = err
}

// take returns the events since the last call.
func (r *recorder) take() []Event {
	r.mu.Lock()
	defer r.mu.Unlock()
	events := r.events
	r.events = nil
	return events
}
