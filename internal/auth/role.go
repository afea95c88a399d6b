package auth

import "slices"

// Role is what a principal may do. Each role may do what the ones before it may.
type Role string

// The roles, weakest first.
const (
	// Viewer reads, but never secrets.
	Viewer Role = "viewer"
	// Operator sends and cancels commands.
	Operator Role = "operator"
	// Admin manages access, bans, data and configuration.
	Admin Role = "admin"
)

// Roles are all roles, weakest first.
var Roles = []Role{Viewer, Operator, Admin}

// Includes reports whether the role may do what the other one may. A role that is not known
// includes nothing.
func (r Role) Includes(other Role) bool {
	mine, theirs := slices.Index(Roles, r), slices.Index(Roles, other)
	return theirs >= 0 && mine >= theirs
}

// Valid reports whether the role is one of Roles.
func (r Role) Valid() bool { return slices.Contains(Roles, r) }
