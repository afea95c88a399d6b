// Package crash owns the tests that run the controller as a process of its own
// and kill it: what was promised must hold in what the next process finds. It
// holds tests only.
//
// A kill takes the process and leaves the operating system, with all that was
// written to it, synced or not. That a commit is synced before it is answered,
// so that it survives the loss of power too, cannot be seen from here.
package crash
