// Package storetest owns the suite that every store.Driver passes.
package storetest

import (
	"testing"

	"github.com/mig-controller/mig-controller/internal/store"
)

// Drivers opens databases with a driver under test. The test closes them.
type Drivers struct {
	// New opens an empty database.
	New func(t *testing.T) store.Driver
	// Crash opens what a kill of the process would leave of a database at this moment: all
	// that is durable, and nothing else. The old driver is not used again; it may already
	// be closed.
	Crash func(t *testing.T, old store.Driver) store.Driver
	// Shared opens a database that is already open, as another process would. It is nil if
	// only one process can use a database.
	Shared func(t *testing.T, d store.Driver) store.Driver
}

// Run runs the suite that every store.Driver passes. Each of its tests checks one
// promise of the contract, which its name states.
func Run(t *testing.T, d Drivers) {
	t.Helper()
	for name, test := range map[string]func(t *testing.T, d Drivers){
		// commit.go
		"a new database is empty":                      emptyDatabase,
		"rows are read as they were committed":         rowsComeBack,
		"versions count the commits of a row":          versionsCount,
		"an update replaces the whole row":             updateReplaces,
		"numbers are in the order of commits":          numbersInOrder,
		"numbers are not reused after a purge":         numbersStayTaken,
		"marks are the latest numbers by name":         marksAreLatest,
		"documents contain any bytes":                  documentBytes,
		"documents of a mebibyte":                      largeDocuments,
		"ids and columns contain any valid characters": anyCharacters,
		"times are kept to the nanosecond":             exactTimes,
		"memory is not shared with callers":            ownMemory,
		"a commit with a thousand rows":                largeCommit,

		// tokens.go
		"tokens are changed and removed":    tokensChange,
		"removing tokens is not a conflict": tokensRemoved,

		// conflict.go
		"a row changed since it was loaded conflicts": staleRowsConflict,
		"the Seq of another command conflicts":        foreignSeqConflicts,
		"a conflict names every row":                  conflictNamesAll,
		"a conflict changes nothing":                  conflictChangesNothing,
		"a row that was purged conflicts":             purgedRowConflicts,

		// context.go
		"a context that has ended is an error":  doneContext,
		"a commit whose context ends is atomic": endingContext,

		// load.go
		"load returns the rows that exist":              loadRows,
		"load returns the first of each queue":          loadQueues,
		"load returns no row twice":                     loadOnce,
		"commands move between queues":                  loadMoved,
		"queues outlive the row of their VM":            loadWithoutVM,
		"load returns a thousand VMs with their queues": loadMany,

		// lists.go
		"VMs are listed by every filter":          listVMs,
		"commands are listed by every filter":     listCommands,
		"the last finished command of each VM":    lastFinished,
		"events are listed by every filter":       listEvents,
		"heartbeats are listed by VM and time":    listHeartbeats,
		"audit events are listed by every filter": listAudit,
		"heartbeats of one moment are all listed": sameMoment,
		"due rows are listed, earliest first":     listDue,

		// pools.go
		"VMs are listed by several pools":            listVMsOfPools,
		"commands are listed by pools":               listCommandsOfPools,
		"events are listed by pools":                 listEventsOfPools,
		"lists of pools follow the VMs":              poolsFollow,
		"VMs are paged while they change pools":      pageVMsOfPools,
		"commands are paged while VMs change pools":  pageCommandsOfPools,
		"events are paged while VMs change pools":    pageEventsOfPools,
		"changes are listed by both pools of the VM": listChangesOfPools,

		// counts.go
		"counts are those of the lists": countsFollow,
		"counts survive a crash":        countsSurvive,

		// paging.go
		"VMs are paged while they change":             pageVMs,
		"commands are paged while they change":        pageCommands,
		"events are paged backward while more arrive": pageEventsBack,
		"events are paged forward while more arrive":  pageEventsOn,
		"audit events are paged while more arrive":    pageAudit,
		"heartbeats are paged while more arrive":      pageHeartbeats,

		// bounds.go
		"a list has at most MaxBytes of documents":  listsBounded,
		"a list says whether there are more":        listsSayMore,
		"pages of large rows contain each row once": pageLarge,

		// changes.go
		"changes are listed in their order":             changesInOrder,
		"a change of an event has its document":         changesOfEvents,
		"a reader that missed changes gets ErrPurged":   changesPurged,
		"the latest change is kept":                     latestChangeStays,
		"listeners are called for commits with changes": listenersCalled,
		"a listener that stopped is not called":         listenersStop,
		"listeners are called for readable commits":     listenersRead,

		// purge.go
		"purge removes what is before its cutoff": purgeCutoffs,
		"purge keeps all without cutoffs":         purgeWithoutCutoffs,
		"purge removes changes in their order":    purgeChanges,
		"purge removes heartbeats in their order": purgeHeartbeats,
		"purge is limited for each class":         purgeLimit,
		"purge empties queues":                    purgeQueues,

		// aside.go
		"rows set aside are in no list":                                  asideIsGone,
		"rows set aside are named by load":                               asideIsNamed,
		"the id of a command that was set aside remains in use":          asideKeepsID,
		"a VM that was set aside can be recreated":                       asideFreesVM,
		"readers of changes before one that was set aside get ErrPurged": asideChange,
		"only damaged rows are set aside":                                asideChecks,
		"rows set aside survive a crash":                                 asideSurvives,

		// concurrent.go
		"no commit of concurrent writers is lost": concurrentWriters,
		"load is consistent":                      loadOneMoment,
		"two drivers share a database":            sharedDatabase,
		"two drivers write concurrently":          sharedWriters,

		// close.go
		"everything survives a crash":            crashKeeps,
		"the change log continues after a crash": crashContinues,
		"a database has an id of its own":        databaseID,
		"a closed driver returns ErrClosed":      closedDriver,
		"Close completes or rejects commits":     closeAmidCommits,
		"everything survives a graceful close":   closeKeeps,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, d)
		})
	}
}
