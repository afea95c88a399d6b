// Package storetest owns the suite that every store.Driver passes.
package storetest

import (
	"testing"

	"github.com/mig-controller/mig-controller/internal/store"
)

// Drivers opens databases of a kind of driver. What it opens is closed by the test.
type Drivers struct {
	// New opens an empty database.
	New func(t *testing.T) store.Driver
	// Crash opens what a kill of the process would leave of a database at this
	// moment: all that is durable, and nothing else. The old driver is not used again;
	// it may have been closed before.
	Crash func(t *testing.T, old store.Driver) store.Driver
	// Shared opens a database that is open already, as another process would. It is
	// nil where only one process has a database.
	Shared func(t *testing.T, d store.Driver) store.Driver
}

// Run runs the suite that every store.Driver passes. Each of its tests checks one
// promise of the contract, which its name states.
func Run(t *testing.T, d Drivers) {
	t.Helper()
	for name, test := range map[string]func(t *testing.T, d Drivers){
		// commit.go
		"a new database is empty":                       emptyDatabase,
		"rows come back as they were committed":         rowsComeBack,
		"versions count the commits of a row":           versionsCount,
		"an update replaces the whole row":              updateReplaces,
		"numbers are in the order of commits":           numbersInOrder,
		"numbers are not given again after a purge":     numbersStayTaken,
		"marks are the latest numbers by name":          marksAreLatest,
		"documents have any bytes":                      documentBytes,
		"documents have a mebibyte":                     largeDocuments,
		"ids and columns have any characters they may":  anyCharacters,
		"times are kept to the nanosecond":              exactTimes,
		"callers keep what they gave and what they got": ownMemory,
		"a commit with a thousand rows":                 largeCommit,

		// conflict.go
		"a row that is not as it was loaded conflicts": staleRowsConflict,
		"the Seq of another command conflicts":         foreignSeqConflicts,
		"a conflict names every row":                   conflictNamesAll,
		"a conflict changes nothing":                   conflictChangesNothing,
		"a row that was purged conflicts":              purgedRowConflicts,

		// context.go
		"a context that is done is an error":              doneContext,
		"a context that ends leaves all of it or nothing": endingContext,

		// load.go
		"load returns the rows that are there":          loadRows,
		"load returns the first of each queue":          loadQueues,
		"load returns no row twice":                     loadOnce,
		"commands move between queues":                  loadMoved,
		"queues outlive the row of their VM":            loadWithoutVM,
		"load returns a thousand VMs with their queues": loadMany,

		// lists.go
		"VMs are listed by every filter":          listVMs,
		"commands are listed by every filter":     listCommands,
		"of each VM the last that finished":       lastFinished,
		"events are listed by every filter":       listEvents,
		"heartbeats are listed by VM and time":    listHeartbeats,
		"heartbeats of one moment are all there":  sameMoment,
		"due rows are listed, the earliest first": listDue,

		// paging.go
		"VMs are paged while they change":           pageVMs,
		"commands are paged while they change":      pageCommands,
		"events are paged backward while more come": pageEventsBack,
		"events are paged forward while more come":  pageEventsOn,
		"heartbeats are paged while more come":      pageHeartbeats,

		// bounds.go
		"a list has MaxBytes of documents at most": listsBounded,
		"a list says whether there are more":       listsSayMore,
		"pages of large rows have every row once":  pageLarge,

		// changes.go
		"changes are listed in their order":             changesInOrder,
		"a change of an event has its document":         changesOfEvents,
		"a reader that missed changes gets ErrPurged":   changesPurged,
		"the latest change stays":                       latestChangeStays,
		"listeners are called for commits with changes": listenersCalled,
		"a listener that stopped is not called":         listenersStop,
		"what a listener is called for can be read":     listenersRead,

		// purge.go
		"purge removes what is before its cutoff": purgeCutoffs,
		"purge keeps all without cutoffs":         purgeWithoutCutoffs,
		"purge removes changes in their order":    purgeChanges,
		"purge removes heartbeats in their order": purgeHeartbeats,
		"purge is limited for each class":         purgeLimit,
		"purge empties queues":                    purgeQueues,

		// aside.go
		"what is set aside is in no list":                                asideIsGone,
		"what is set aside is named by load":                             asideIsNamed,
		"the id of a command that was set aside stays":                   asideKeepsID,
		"a VM that was set aside can be new":                             asideFreesVM,
		"readers of changes before one that was set aside get ErrPurged": asideChange,
		"only damaged rows are set aside":                                asideChecks,
		"what is set aside survives a crash":                             asideSurvives,

		// concurrent.go
		"no commit of concurrent writers is lost": concurrentWriters,
		"load is of one moment":                   loadOneMoment,
		"two drivers share a database":            sharedDatabase,
		"two drivers write at once":               sharedWriters,

		// close.go
		"everything survives a crash":                  crashKeeps,
		"the log of changes goes on after a crash":     crashContinues,
		"a database has an id of its own":              databaseID,
		"a closed driver returns ErrClosed":            closedDriver,
		"closing completes or refuses commits":         closeAmidCommits,
		"everything is there after a graceful closing": closeKeeps,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, d)
		})
	}
}
