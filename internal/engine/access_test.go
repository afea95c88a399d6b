package engine

import (
	"context"
	"errors"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/internal/audit"
	"github.com/mig-controller/mig-controller/internal/auth"
	"github.com/mig-controller/mig-controller/internal/fleet"
	"github.com/mig-controller/mig-controller/internal/store"
)

func aToken(id string) auth.Token {
	return auth.Token{ID: id, Hash: auth.Hash{1, byte(len(id))}, Name: "ci", Role: auth.Operator, Pools: []string{"p"}, CreatedAt: t0, ExpiresAt: t0.Add(time.Hour)}
}

func (r *rig) tokens() map[string]auth.Token {
	r.Helper()
	all, err := r.Tokens(r.Context())
	require.NoError(r, err)
	byID := map[string]auth.Token{}
	for _, t := range all {
		byID[t.ID] = t
	}
	require.Len(r, byID, len(all))
	return byID
}

// pending is a call in progress, and its context. announced is set once its event is durable.
func (r *rig) pending() (ctx context.Context, p *audit.Pending, announced *audit.Event) {
	r.Helper()
	announced = new(audit.Event)
	p = audit.NewPending(audit.Event{At: t0, By: auth.Principal{Name: "alice", Method: auth.ByToken}, Action: "S/M", Count: 1},
		func(e audit.Event) { *announced = e })
	return audit.With(r.Context(), p), p, announced
}

func (r *rig) audited() []audit.Event {
	r.Helper()
	events, more, err := r.Audit(r.Context(), store.AuditQuery{}, 1000)
	require.NoError(r, err)
	require.False(r, more)
	return events
}

// Tokens survive a crash as they were last saved, and removed ones do not.
func TestTokensAreStored(t *testing.T) {
	t.Parallel()
	r, crash := onDisk(t)
	had, err := r.HadTokens(t.Context())
	require.NoError(t, err)
	require.False(t, had)
	a, b := aToken("tok-a"), aToken("tok-bb")
	require.NoError(t, r.SaveToken(t.Context(), a))
	require.NoError(t, r.SaveToken(t.Context(), b))
	a.LastUsedAt = t0.Add(time.Minute)
	require.NoError(t, r.SaveToken(t.Context(), a))
	require.NoError(t, r.RemoveTokens(t.Context(), []string{b.ID, "tok-none"}))
	require.Equal(t, map[string]auth.Token{a.ID: a}, r.tokens())
	r = crash()
	require.Equal(t, map[string]auth.Token{a.ID: a}, r.tokens())
	require.NoError(t, r.RemoveTokens(t.Context(), []string{a.ID}))
	require.Empty(t, r.tokens())
	had, err = r.HadTokens(t.Context())
	require.NoError(t, err)
	require.True(t, had, "that there were tokens outlasts them")
	require.Empty(t, r.audited(), "without a call in progress there is no audit event")
}

// A token that another program has changed is not overwritten: what it has revoked stays so.
// Everything else in the same group is committed.
func TestSaveTokenChecksTheVersion(t *testing.T) {
	t.Parallel()
	r := inMemory(t)
	require.NoError(t, r.SaveToken(t.Context(), aToken("tok-a")))
	other := r.second()
	revoked := other.tokens()["tok-a"]
	revoked.RevokedAt = t0
	require.NoError(t, other.SaveToken(t.Context(), revoked))

	used := aToken("tok-a")
	used.LastUsedAt = t0
	var err error
	ctx, p, _ := r.pending()
	r.group(
		func() { err = r.SaveToken(ctx, used) },
		func() { r.accept("c", "vm") },
		func() { require.NoError(t, r.SaveToken(t.Context(), aToken("tok-new"))) },
	)
	require.ErrorIs(t, err, fleet.ErrUnavailable)
	require.False(t, p.Recorded())
	require.Equal(t, fleet.Pending, r.command("c").State)
	require.Equal(t, map[string]auth.Token{"tok-a": revoked, "tok-new": aToken("tok-new")}, r.tokens())
	require.NoError(t, r.SaveToken(t.Context(), revoked), "its new state was read")
	require.Empty(t, r.audited())
}

// A token that cannot be read does not exist, and prevents nothing. It is kept for people.
func TestDamagedTokens(t *testing.T) {
	t.Parallel()
	r := openFile(t, filepath.Join(t.TempDir(), "controller.db"))
	for _, id := range []string{"tok-a", "tok-b"} {
		require.NoError(t, r.SaveToken(t.Context(), aToken(id)))
	}
	for id, doc := range map[string]string{
		"text": "{{{", "another": `{"id":"tok-a"}`, "no hash": `{"id":"no hash","role":"admin"}`, "no role": `{"id":"no role","role":"king"}`,
	} {
		_, err := r.db.Driver.Commit(t.Context(), store.Writes{Tokens: []store.TokenRow{{ID: id, Doc: []byte(doc)}}})
		require.NoError(t, err)
	}
	require.Equal(t, map[string]auth.Token{"tok-a": aToken("tok-a"), "tok-b": aToken("tok-b")}, r.tokens())
	rows, err := r.db.Driver.Tokens(t.Context())
	require.NoError(t, err)
	require.Len(t, rows, 2)
}

// The event of a call is in the commit of the change that it describes.
func TestAuditIsCommittedWithTheChange(t *testing.T) {
	t.Parallel()
	r := inMemory(t)
	var commits []store.Writes
	r.db.onCommit(func(w store.Writes, next commitFunc) (store.Committed, error) {
		commits = append(commits, w)
		return next(w)
	})
	ctx, p, announced := r.pending()
	_, err := r.Accept(ctx, drain(t, "c", "vm"))
	require.NoError(t, err)
	require.Len(t, commits, 1)
	require.Len(t, commits[0].Commands, 1)
	require.Len(t, commits[0].Audit, 1)
	require.True(t, p.Recorded())
	want := audit.Event{
		At: t0, By: auth.Principal{Name: "alice", Method: auth.ByToken}, Action: "S/M", VM: "vm", Command: "c", Detail: "drain",
		Outcome: audit.OK, Count: 1,
	}
	require.Equal(t, want, *announced)

	again, p, announced := r.pending()
	_, err = r.Accept(again, drain(t, "c", "vm"))
	require.NoError(t, err)
	require.False(t, p.Recorded(), "a repeated request changes nothing")
	require.Empty(t, *announced)

	cancel, p, _ := r.pending()
	_, err = r.Apply(cancel, fleet.CancelRequested{VM: "vm", Command: "c", By: "alice"}, t0)
	require.NoError(t, err)
	require.True(t, p.Recorded())
	require.Equal(t, "alice", r.command("c").CancelledBy)
	failing, p, _ := r.pending()
	_, err = r.Apply(failing, fleet.CancelRequested{VM: "vm", Command: "none"}, t0)
	require.ErrorIs(t, err, fleet.ErrNotFound)
	require.False(t, p.Recorded())

	saving, p, _ := r.pending()
	require.NoError(t, r.SaveToken(saving, aToken("tok-a")))
	require.True(t, p.Recorded())
	events := r.audited()
	require.Len(t, events, 3)
	require.Equal(t, "tok-a", events[0].Detail)
	require.Positive(t, events[2].Seq)
	events[2].Seq, events[2].By.Scope = 0, auth.Scope{}
	require.Equal(t, want, events[2])
}

// An event is not recorded when its commit fails, and once when it is repeated after a
// conflict.
func TestAuditOfCommitsThatFail(t *testing.T) {
	t.Parallel()
	r := inMemory(t)
	r.accept("first", "vm")
	ctx, p, announced := r.pending()
	r.db.onCommit(func(store.Writes, commitFunc) (store.Committed, error) { return store.Committed{}, errors.New("full") })
	_, err := r.Accept(ctx, drain(t, "c", "vm"))
	require.ErrorIs(t, err, fleet.ErrUnavailable)
	require.ErrorIs(t, r.RecordAudit(t.Context(), p.Event()), fleet.ErrUnavailable)
	require.False(t, p.Recorded())
	require.Empty(t, *announced)
	r.db.onCommit(nil)
	require.Empty(t, r.audited())

	r.second().accept("meanwhile", "vm") // conflicts with what r knows
	_, err = r.Accept(ctx, drain(t, "c", "vm"))
	require.NoError(t, err)
	require.True(t, p.Recorded())
	require.Len(t, r.audited(), 1)
}

// Events are recorded on their own too, all of a call or none, and expire.
func TestRecordAudit(t *testing.T) {
	t.Parallel()
	r, crash := onDisk(t)
	old, recent := audit.Event{At: t0.Add(-401 * 24 * time.Hour), Action: "old", Count: 7}, audit.Event{At: t0, Action: "recent", Outcome: "internal", Count: 1}
	require.NoError(t, r.RecordAudit(t.Context(), old, recent))
	never := audit.Event{At: time.Date(10_000, 1, 1, 0, 0, 0, 0, time.UTC)} // JSON has no such time
	require.Error(t, r.RecordAudit(t.Context(), recent, never))
	r = crash()
	events := r.audited()
	require.Len(t, events, 2)
	require.Equal(t, "recent", events[0].Action)
	require.EqualValues(t, 7, events[1].Count)
	n, err := r.Purge(t.Context(), Retention{}, t0)
	require.NoError(t, err)
	require.Zero(t, n, "zero is forever")
	n, err = r.Purge(t.Context(), Retention{Audit: 400 * 24 * time.Hour}, t0)
	require.NoError(t, err)
	require.Equal(t, 1, n)
	require.Equal(t, "recent", r.audited()[0].Action)
}

// A damaged event is missing in lists, and hides no other.
func TestDamagedAudit(t *testing.T) {
	t.Parallel()
	r := inMemory(t)
	require.NoError(t, r.RecordAudit(t.Context(), audit.Event{At: t0, Action: "a"}, audit.Event{At: t0, Action: "b"}))
	_, err := r.db.Driver.Commit(t.Context(), store.Writes{Audit: []store.AuditRow{
		{At: t0, Doc: []byte("{{{")}, {At: t0, Principal: "mallory", Doc: []byte(`{"name":"alice"}`)},
	}})
	require.NoError(t, err)
	events := r.audited()
	require.Len(t, events, 2)
	require.Equal(t, "b", events[0].Action)
}
