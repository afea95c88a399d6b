// Package crash runs the controller as a separate process and kills it: all promises must
// hold in the state that the next process finds. It contains only tests.
//
// A kill ends the process but not the operating system, which keeps everything that was
// written, synced or not. These tests cannot show that a commit is synced before it is
// acknowledged, and so survives a power loss.
package crash
