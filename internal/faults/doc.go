// Package faults owns the suite of failure scenarios: the programs as they are
// shipped, with what stands before and around them, while something breaks. It
// holds tests only. docs/faults.md lists the scenarios, and a test compares.
//
// The quick ones run with all other tests. The others take minutes and need programs
// that others do not: they are built with the tag faults alone, and run by make
// faults.
package faults
