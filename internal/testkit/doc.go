// Package testkit owns the failures that several test packages inject: dead links,
// malformed messages and full disks.
package testkit
