// Package app owns the controller as a process: the lock of the data directory, the format of
// the log, and the order in which everything starts and stops.
//
// wire.go wires the other packages together; it is the only file that knows all of them.
package app
