// Package fleet owns the domain types of the controller and their rules: VMs and their
// registration, commands and their state machine, events, heartbeats, and the validation of
// each.
//
// It imports the standard library only. Everything in it is a value or a pure function:
// stores persist what these functions decide, and the time is an argument. The JSON form of
// its types is the stored form.
package fleet
