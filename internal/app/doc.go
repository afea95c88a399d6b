// Package app owns the controller as a process: its options and where they come
// from, the two addresses and the server behind them, the data directory's
// lock, the log's form, and the order in which everything starts and stops.
//
// What the controller does for its fleet is wired together in wire.go, the one
// place that knows every other package.
package app
