// Package powerloss owns the simulated disk beneath an SQLite database in tests: what a
// power loss leaves on it, and syncs that fail.
//
// A VFS passes everything on to SQLite's default file system, except for syncs. It
// records each creation, write, truncation, sync and deletion of the database, its WAL
// and its rollback journal. From the record it builds what is on the disk if the power
// fails at any moment: what was synced is there, and Keep chooses which of the later
// writes are, whole or torn.
//
//	v := powerloss.Register(t)
//	path := filepath.Join(t.TempDir(), "x.db")
//	db, err := sql.Open("sqlite", "file:"+path+"?vfs="+v.Name()+
//		"&_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)")
//	...                    // commit
//	answered := v.Moment() // what was answered until here must be there from here on
//	...                    // go on
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
// that dies while the kernel lives on; a process that ends gracefully closes its
// database. FailSyncs simulates a disk that fails.
//
// # The model
//
// A disk writes sectors of 512 bytes, each of them whole or not at all. What is written
// between two syncs reaches it in any order. A new or deleted file is so on the disk
// once SQLite has synced the directory: with the first sync of a new file, or with the
// deletion. Until then changes of the directory reach the disk in their order, as they
// do on file systems with a journal. A failed sync loses what it should have written,
// as on Linux: see FailSyncs.
//
// The index of the WAL ("-shm") is memory and not recorded. It is gone after a power
// loss or a kill. Nothing is synced to the real disk. The record, with all that was
// written, is kept in memory until the test ends.
package powerloss
