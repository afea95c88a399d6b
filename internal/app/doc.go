// Package app owns the controller as a process: the data directory's lock, the form of the
// log, and the order in which everything starts and stops.
//
// What the controller does for its fleet is wired together in wire.go, the one
// place that knows every other package.
package app
