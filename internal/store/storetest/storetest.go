// Package storetest holds the suite that every backend of package store passes.
package storetest

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/internal/fleet"
	"github.com/mig-controller/mig-controller/internal/store"
)

// Backend is a kind of store under test. What it opens is closed by the test.
type Backend struct {
	// New opens an empty store.
	New func(t *testing.T) store.Store
	// Crash opens what a kill of the store's process would leave behind: all that
	// is durable now, and nothing else. The old store is of no more use.
	Crash func(t *testing.T, old store.Store) store.Store
}

// Run runs the suite.
func Run(t *testing.T, b Backend) {
	for name, test := range map[string]func(*testing.T, Backend){
		"a command id is an idempotency key":             testIdempotency,
		"commands go out in order, one at a time":        testWindow,
		"a new session delivers again":                   testRedelivery,
		"a command is claimed as it is accepted":         testClaimedAtOnce,
		"a lease is for what is next":                    testLeaseNames,
		"the newest session wins":                        testFencing,
		"the ack clock stops with the session":           testAckClock,
		"nothing is delivered after its deadline":        testDeadline,
		"deliveries are limited":                         testMaxDeliveries,
		"a delivery that was not written does not count": testNotWritten,
		"silence puts a timeout off":                     testSilence,
		"what waits for a token is overtaken":            testTokenWait,
		"time ends commands":                             testSweep,
		"cancelling":                                     testCancel,
		"acks":                                           testAcks,
		"polls are handed a command once a boot":         testPoll,
		"registration: a drop does not repeat it":        testRegistrationDrop,
		"registration: a restart repeats it":             testRegistrationRestart,
		"registration: vm_started repeats it":            testRegistrationStarted,
		"registration: proof counts as the ack":          testRegistrationProof,
		"registration: a queued command serves":          testRegistrationAdopts,
		"events of superseded sessions show nothing":     testStaleEvent,
		"events wait for the journal":                    testJournalMark,
		"heartbeats are kept and shown":                  testHeartbeats,
		"lists are filtered and paged in a stable order": testLists,
		"changes are told in order and can be resumed":   testChanges,
		"purging":                           testPurge,
		"everything survives a crash":       testCrash,
		"callers share commits":             testConcurrency,
		"a closed store is unavailable":     testClosed,
		"random histories follow the model": testModel,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, b)
		})
	}
}

// start is when every history begins.
var start = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

var defaults = fleet.CommandDefaults{TTL: time.Hour, AckTimeout: 30 * time.Second, MaxDeliveries: 5}

// fixture drives a store the way the controller does.
type fixture struct {
	*testing.T
	store.Store
	now     time.Time
	written map[fleet.VMID]written
	// silent are the VMs from which nothing arrives.
	silent map[fleet.VMID]bool
}

// written is the latest command that was written on a session.
type written struct {
	epoch fleet.Epoch
	id    fleet.CommandID
}

func open(t *testing.T, b Backend) *fixture {
	t.Helper()
	s := b.New(t)
	f := &fixture{T: t, Store: s, now: start, written: map[fleet.VMID]written{}, silent: map[fleet.VMID]bool{}}
	t.Cleanup(func() { _ = f.Store.Close() })
	return f
}

func (f *fixture) later(d time.Duration) time.Time {
	f.now = f.now.Add(d)
	return f.now
}

func (f *fixture) request(id, vm, kind string) fleet.Command {
	f.Helper()
	c, err := fleet.CommandRequest{ID: id, VM: vm, Type: kind}.Accept(defaults, f.now)
	require.NoError(f, err)
	return c
}

func (f *fixture) send(id, vm string) fleet.Command {
	f.Helper()
	c, err := f.enqueue(f.request(id, vm, "drain"))
	require.NoError(f, err)
	return c
}

func (f *fixture) enqueue(c fleet.Command) (fleet.Command, error) {
	return f.Enqueue(f.Context(), c, func() time.Time { return f.now })
}

func (f *fixture) register(vm fleet.VMID) fleet.Command {
	return f.request(string(fleet.NewCommandID()), string(vm), fleet.RegisterRunner)
}

func (f *fixture) connect(vm string) fleet.VM {
	f.Helper()
	id := fleet.VMID(vm)
	v, err := f.OpenSession(f.Context(), fleet.Hello{VM: id, Pool: "p"}, f.register(id), func() fleet.CommandID { return f.written[id].id }, f.now)
	require.NoError(f, err)
	return v
}

// deliver does what a session does to get its next command.
func (f *fixture) deliver(vm string, e fleet.Epoch) (fleet.Command, error) {
	return f.lease(vm, store.Attempt{Via: fleet.Stream, Epoch: e, At: f.now})
}

// poll does what polling does for the VM "vm".
func (f *fixture) poll() (fleet.Command, error) {
	f.Helper()
	_, err := f.RequestRegistration(f.Context(), "vm", f.register("vm"), f.now)
	require.NoError(f, err)
	return f.lease("vm", store.Attempt{Via: fleet.HTTP, At: f.now})
}

func (f *fixture) lease(vm string, a store.Attempt) (fleet.Command, error) {
	id := fleet.VMID(vm)
	if w := f.written[id]; a.Via == fleet.Stream && w.epoch == a.Epoch {
		a.Written = w.id
	}
	c, err := f.Next(f.Context(), id, a)
	if err == nil && !c.Out(a.Epoch) {
		c, err = f.Lease(f.Context(), id, c.ID, a)
	}
	if err == nil {
		f.written[id] = written{a.Epoch, c.ID}
	}
	return c, err
}

// leaseWithoutToken is deliver while no token is available.
func (f *fixture) leaseWithoutToken(vm string, e fleet.Epoch) (fleet.Command, error) {
	return f.lease(vm, store.Attempt{Via: fleet.Stream, Epoch: e, WithoutToken: true, At: f.now})
}

// leaseOnly is deliver by a session that does not come to write the command.
func (f *fixture) leaseOnly(vm string, e fleet.Epoch) (fleet.Command, error) {
	before := f.written[fleet.VMID(vm)]
	defer func() { f.written[fleet.VMID(vm)] = before }()
	return f.deliver(vm, e)
}

func (f *fixture) mustDeliver(vm string, e fleet.Epoch) fleet.Command {
	f.Helper()
	c, err := f.deliver(vm, e)
	require.NoError(f, err)
	return c
}

func (f *fixture) nothingDue(vm string, e fleet.Epoch) {
	f.Helper()
	c, err := f.deliver(vm, e)
	require.ErrorIs(f, err, fleet.ErrNothingDue, "%s was handed out", c.ID)
}

func (f *fixture) ack(c fleet.Command, e fleet.Epoch, success bool) {
	f.Helper()
	_, _, err := f.Ack(f.Context(), c.VM, e, fleet.Ack{CommandID: c.ID, Success: success}, f.now)
	require.NoError(f, err)
}

func (f *fixture) command(id fleet.CommandID) fleet.Command {
	f.Helper()
	c, err := f.Command(f.Context(), id)
	require.NoError(f, err)
	return c
}

func (f *fixture) vm(id string) fleet.VM {
	f.Helper()
	v, err := f.VM(f.Context(), fleet.VMID(id))
	require.NoError(f, err)
	return v
}

func (f *fixture) event(vm, kind string, via fleet.Route, e fleet.Epoch, sent time.Time) fleet.VM {
	f.Helper()
	v, _, err := f.RecordEvent(f.Context(), fleet.Event{
		Origin: fleet.Origin{VM: fleet.VMID(vm), Via: via, Epoch: e, ReceivedAt: f.now, SentAt: sent},
		Type:   kind, Body: []byte(`{"type":"` + kind + `"}`),
	}, f.register(fleet.VMID(vm)))
	require.NoError(f, err)
	return v
}

func (f *fixture) beat(vm string, e fleet.Epoch, status string, configured bool) fleet.VM {
	f.Helper()
	require.NoError(f, f.RecordHeartbeats(f.Context(), []fleet.Heartbeat{{
		Origin: fleet.Origin{VM: fleet.VMID(vm), Via: fleet.Stream, Epoch: e, ReceivedAt: f.now},
		Status: status, Runner: &fleet.Runner{State: "idle", Configured: configured},
	}}, f.register))
	return f.vm(vm)
}

// registered brings a VM to a live session with a registered runner.
func (f *fixture) registered(vm string) fleet.VM {
	f.Helper()
	v := f.connect(vm)
	f.ack(f.mustDeliver(vm, v.Epoch), v.Epoch, true)
	v = f.event(vm, fleet.EventRunnerRegistered, fleet.Stream, v.Epoch, time.Time{})
	require.Equal(f, fleet.Registered, v.Registration.State)
	return v
}

func (f *fixture) registrations(vm string) int {
	f.Helper()
	cs, err := f.Commands(f.Context(), store.CommandFilter{VM: fleet.VMID(vm), Type: fleet.RegisterRunner}, store.Page{Size: 100})
	require.NoError(f, err)
	return len(cs)
}

func (f *fixture) drop(vm string, e fleet.Epoch) {
	f.Helper()
	require.NoError(f, f.CloseSession(f.Context(), fleet.VMID(vm), e, f.written[fleet.VMID(vm)].id, f.now))
}

// sweep ends what is past its time. Something arrives all the time, unless the VM
// is silent.
func (f *fixture) sweep(limit int) int {
	f.Helper()
	n, err := f.Sweep(f.Context(), f.now, f.lastMessageAt, limit)
	require.NoError(f, err)
	return n
}

func (f *fixture) lastMessageAt(c fleet.Command) time.Time {
	if f.silent[c.VM] {
		return time.Time{}
	}
	return f.now
}
