package engine_test

import (
	"log/slog"
	"path/filepath"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/mig-controller/mig-controller/internal/engine"
	"github.com/mig-controller/mig-controller/internal/store"
	"github.com/mig-controller/mig-controller/internal/store/memory"
	"github.com/mig-controller/mig-controller/internal/store/sqlite"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// driverKind is a kind of driver under test. The engine closes what it opens.
type driverKind struct {
	// New opens an empty database.
	New func(t *testing.T) store.Driver
	// Crash opens what a kill of the database's process would leave: all that is durable
	// now, and nothing else. Later commits of the old driver fail, or are not visible in
	// it.
	Crash func(t *testing.T, old store.Driver) store.Driver
	// Steps is the number of operations in a random history.
	Steps int
}

// driverKinds returns every kind of driver, by name.
func driverKinds() map[string]driverKind {
	var paths sync.Map // store.Driver → its file
	open := func(t *testing.T, path string) store.Driver {
		t.Helper()
		db, err := sqlite.Open(t.Context(), path, slog.New(slog.DiscardHandler), nil)
		require.NoError(t, err)
		paths.Store(db, path)
		return db
	}
	return map[string]driverKind{
		"sqlite": {
			Steps: 4000, // each one calls fsync
			New: func(t *testing.T) store.Driver {
				t.Helper()
				return open(t, filepath.Join(t.TempDir(), "controller.db"))
			},
			Crash: func(t *testing.T, old store.Driver) store.Driver {
				t.Helper()
				stored, _ := paths.Load(old)
				path, ok := stored.(string)
				require.True(t, ok)
				return open(t, engine.CopyFile(t, path))
			},
		},
		"memory": {
			Steps: 12000,
			New:   func(*testing.T) store.Driver { return memory.New() },
			Crash: func(t *testing.T, old store.Driver) store.Driver {
				t.Helper()
				db, ok := old.(*memory.DB)
				require.True(t, ok)
				return db.Crash()
			},
		},
	}
}

// TestEngine checks the promises on every kind of driver.
func TestEngine(t *testing.T) {
	t.Parallel()
	for driver, kind := range driverKinds() {
		for name, test := range promises {
			t.Run(driver+"/"+name, func(t *testing.T) {
				t.Parallel()
				test(open(t, kind))
			})
		}
	}
}

// promises are tests that an engine passes on every driver.
var promises = map[string]func(*fixture){
	"a command id is an idempotency key":             testIdempotency,
	"commands are delivered in order, one at a time": testOrder,
	"a new session redelivers":                       testRedelivery,
	"a command is leased when it is accepted":        testLeasedAtOnce,
	"a lease is for the next command":                testLeaseOfNext,
	"the newest session wins":                        testFencing,
	"the ack clock stops with the session":           testAckClock,
	"nothing is delivered after its deadline":        testDeadline,
	"deliveries are limited":                         testMaxDeliveries,
	"a delivery that was not written does not count": testNotWritten,
	"silence postpones a timeout":                    testSilence,
	"a command that waits for a token is overtaken":  testTokenWait,
	"time ends commands":                             testSweep,
	"cancelling":                                     testCancel,
	"acks":                                           testAcks,
	"polls get a command once per boot":              testPoll,
	"registration: a drop does not repeat it":        testRegistrationDrop,
	"registration: a restart repeats it":             testRegistrationRestart,
	"registration: vm_started repeats it":            testRegistrationStarted,
	"registration: proof counts as the ack":          testRegistrationProof,
	"registration: a queued register_runner is used": testRegistrationAdopts,
	"events of superseded sessions are not evidence": testStaleEvent,
	"events wait for the journal":                    testJournalMark,
	"heartbeats are kept and shown":                  testHeartbeats,
	"lists are filtered and paged in a stable order": testLists,
	"changes are listed in order and can be resumed": testChanges,
	"purging":                       testPurge,
	"deadlines move with the clock": onJumps(testClockDeadlines),
	"what is newer than a jump is not shifted":              onJumps(testClockYoung),
	"the times of VMs move with the clock":                  onJumps(testClockVMs),
	"a jump stops no delivery":                              onJumps(testClockSends),
	"a jump forward purges nothing immediately":             testPurgeClock,
	"a jump back purges nothing":                            testPurgeBack,
	"everything survives a crash":                           testCrash,
	"callers share commits":                                 testConcurrency,
	"a closed store is unavailable":                         testClosed,
	"random histories follow the model":                     testModel,
	"random inputs lead to the records that the rules give": testRecords,
}
