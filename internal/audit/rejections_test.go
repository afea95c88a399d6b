package audit

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/internal/auth"
)

// rejecting calls fn with a Rejections in a bubble, whose time passes at once.
func rejecting(t *testing.T, fn func(r *Rejections, stored *recorder, log *bytes.Buffer)) {
	t.Helper()
	synctest.Test(t, func(*testing.T) {
		stored, log := new(recorder), new(bytes.Buffer)
		r := NewRejections(stored, func() time.Time { return time.Now().UTC() }, slog.New(slog.NewTextHandler(log, nil)))
		defer r.Close()
		fn(r, stored, log)
	})
}

func guess(source string) auth.Rejected {
	return auth.Rejected{Source: source, Action: "AdminService/ListVMs", Err: auth.ErrUnknown}
}

func minutes(n int) {
	time.Sleep(time.Duration(n) * time.Minute) // fake clock
	synctest.Wait()
}

// The rejections of a source, for a reason and within a minute, are one event and one line.
func TestRejectionsShareAnEvent(t *testing.T) {
	t.Parallel()
	rejecting(t, func(r *Rejections, stored *recorder, log *bytes.Buffer) {
		began := time.Now().UTC()
		for range 500 {
			r.Record(guess("10.0.0.1"))
			r.Record(guess("10.0.0.2"))
		}
		who := auth.Principal{Name: "ci", Method: auth.ByToken, TokenID: "tok-1", Role: auth.Viewer, Scope: auth.AllPools()}
		r.Record(auth.Rejected{Source: "10.0.0.1", By: who, Action: "AdminService/SendCommand", Err: &auth.Forbidden{Message: "requires operator"}})
		require.Empty(t, stored.take())
		require.Equal(t, 3, strings.Count(log.String(), "\n"), log.String())
		minutes(1)
		events := stored.take()
		require.Len(t, events, 3)
		byKey := map[string]Event{}
		for _, e := range events {
			byKey[e.Address+" "+e.Detail] = e
		}
		require.Equal(t, Event{
			At: began, Address: "10.0.0.2", Action: "AdminService/ListVMs", Detail: "unknown", Outcome: "unauthenticated",
			Error: auth.ErrUnknown.Error(), Count: 500,
		}, byKey["10.0.0.2 unknown"])
		require.Equal(t, Event{
			At: began, By: auth.Principal{Name: "ci", Method: auth.ByToken, TokenID: "tok-1"}, Address: "10.0.0.1",
			Action: "AdminService/SendCommand", Detail: "forbidden", Outcome: "permission_denied", Error: "requires operator", Count: 1,
		}, byKey["10.0.0.1 forbidden"])

		minutes(5)
		require.Empty(t, stored.take(), "there are no events without rejections")
		r.Record(guess("10.0.0.1"))
		require.Equal(t, 4, strings.Count(log.String(), "\n"), "the next minute has a line again")
	})
}

// An event of different methods or principals names none of them.
func TestRejectionsNameWhatTheyShare(t *testing.T) {
	t.Parallel()
	rejecting(t, func(r *Rejections, stored *recorder, _ *bytes.Buffer) {
		for i, err := range []error{auth.ErrTooMany, &auth.Forbidden{Message: "no"}} {
			for n := range 2 {
				r.Record(auth.Rejected{Source: "a", By: auth.Principal{Name: fmt.Sprint("p", n)}, Action: fmt.Sprint("S/M", n*i), Err: err})
			}
		}
		r.Close()
		events := stored.take()
		require.Len(t, events, 2)
		for _, e := range events {
			require.Empty(t, e.By.Name)
			require.Equal(t, e.Outcome == "resource_exhausted", e.Action == "S/M0", "%+v", e)
		}
	})
}

// The outcome of a rejection is the code that its caller gets.
func TestOutcomeOfRejections(t *testing.T) {
	t.Parallel()
	for outcome, err := range map[string]error{
		"unauthenticated": auth.ErrUnknown, "permission_denied": &auth.Forbidden{Message: "no"},
		"resource_exhausted": auth.ErrTooMany, "unavailable": fmt.Errorf("an issuer: %w", auth.ErrUnavailable),
	} {
		require.Equal(t, outcome, outcomeOf(err))
		require.Contains(t, Outcomes, outcome)
	}
}

// Close stores what is pending.
func TestRejectionsAreStoredAtTheEnd(t *testing.T) {
	t.Parallel()
	rejecting(t, func(r *Rejections, stored *recorder, _ *bytes.Buffer) {
		r.Record(guess("10.0.0.1"))
		r.Close()
		r.Close()
		require.Len(t, stored.take(), 1)
	})
}

// Callers with any number of addresses cause a bounded number of events and lines, in a
// minute and in a year, and all their requests are counted.
func TestRejectionsAreBounded(t *testing.T) {
	t.Parallel()
	rejecting(t, func(r *Rejections, stored *recorder, log *bytes.Buffer) {
		all, counted, rows := 0, int64(0), 0
		attack := func(n int) int {
			for i := range n {
				all++
				r.Record(guess(fmt.Sprintf("2001:db8:%x:%x::/64", all>>16, i)))
			}
			minutes(1)
			events := stored.take()
			for _, e := range events {
				counted += e.Count
			}
			rows += len(events)
			return len(events)
		}
		require.Equal(t, maxSources+1, attack(3000))
		require.LessOrEqual(t, strings.Count(log.String(), "\n"), maxSources+1)
		for range 200 {
			attack(1500)
		}
		require.EqualValues(t, all, counted)
		require.LessOrEqual(t, rows, burstSources+dailySources/7+201, "200 minutes are less than a seventh of a day")
		require.Less(t, attack(1500), 20)
	})
}

// A store that fails loses no count, and what is kept for it is bounded.
func TestRejectionsOutlastTheStore(t *testing.T) {
	t.Parallel()
	rejecting(t, func(r *Rejections, stored *recorder, log *bytes.Buffer) {
		stored.fail(errors.New("the disk is full"))
		began := time.Now().UTC()
		for n := range 5 {
			r.Record(guess("10.0.0.1"))
			for i := range maxSources {
				r.Record(guess(fmt.Sprint(n, " ", i)))
			}
			minutes(1)
		}
		require.Contains(t, log.String(), "the disk is full")
		r.mu.Lock()
		kept := len(r.pending)
		r.mu.Unlock()
		require.LessOrEqual(t, kept, maxSources+1)
		stored.fail(nil)
		minutes(1)
		total := int64(0)
		for _, e := range stored.take() {
			total += e.Count
			if e.Address == "10.0.0.1" {
				require.EqualValues(t, 5, e.Count)
				require.Equal(t, began, e.At)
			}
		}
		require.EqualValues(t, 5*(maxSources+1), total)
	})
}
