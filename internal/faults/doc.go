// Package faults owns the suite of failure scenarios: the controller as a process of
// its own, with what stands before it and around it, while something breaks. It
// holds tests only.
//
// The tests take minutes and need programs that others do not: they are built with
// the tag faults alone, and run by make faults.
package faults
