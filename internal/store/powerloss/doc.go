// Package powerloss owns a simulated disk beneath an SQLite database in tests: what a power
// loss leaves on it, and failing syncs.
//
// A VFS passes all calls to SQLite's default file system, except for syncs. It records each
// creation, write, truncation, sync and deletion of the database, its WAL and its rollback
// journal. From the record it computes what is on the disk if the power fails at any
// moment: synced writes are, and Keep chooses which later writes are, whole or torn.
//
//	v := powerloss.Register(t)
//	path := filepath.Join(t.TempDir(), "x.db")
//	db, err := sql.Open("sqlite", "file:"+path+"?vfs="+v.Name()+
//		"&_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)")
//	...                    // commit
//	answered := v.Moment() // commits acknowledged so far must survive from here on
//	...                    // continue
//	dir := t.TempDir()
//	for moment := answered; moment <= v.Moment(); moment++ {
//		left := v.SnapshotAt(moment, dir, powerloss.Sectors(dice))
//		...               // open left without the VFS, check it, close it
//	}
//
// Call Register before adding the cleanup that closes the database, so that the
// database is closed first.
//
// A program can stop in three ways. Snapshot simulates a power loss, and Kill a process
// that is killed while the kernel keeps running; a process that ends gracefully closes its
// database. FailSyncs simulates a failing disk.
//
// # The model
//
// A disk writes sectors of 512 bytes, each whole or not at all. Writes between two syncs
// reach it in any order. The creation or deletion of a file is durable once SQLite has
// synced the directory: with the first sync of a new file, or with the deletion. Until then
// directory changes reach the disk in order, as on journaling file systems. A failed sync
// loses what it should have written, as on Linux: see FailSyncs.
//
// The index of the WAL ("-shm") is shared memory and is not recorded. It is lost with a
// power loss or a kill. Nothing is synced to the real disk. The record, with all written
// data, is kept in memory until the test ends.
package powerloss
