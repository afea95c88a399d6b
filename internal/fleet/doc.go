// Package fleet owns the nouns of the controller and the rules they live by:
// VMs and how they are registered, commands and their state machine, events,
// heartbeats, and what makes any of them valid.
//
// It imports the standard library only. Everything in it is a value or a pure
// function: stores persist what these functions decide, and time comes in as an
// argument. The JSON form of its types is the form that stores keep.
package fleet
