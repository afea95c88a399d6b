// Package faults owns the suite of failure scenarios: the programs as they are released,
// with proxies and supervisors, while something fails. It contains only tests.
// docs/faults.md lists the scenarios, and a test compares the list.
//
// The quick scenarios run with all other tests. The others take minutes and need additional
// programs: they have the build tag faults, and make faults runs them.
package faults
