// Package testkit owns what several packages of tests break things with: links that
// go dead, messages that are malformed and disks that are full.
package testkit
