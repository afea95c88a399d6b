// Package testkit owns what several test packages need: the failures that they inject, such as
// dead links, malformed messages and full disks, and a log that is read while it is written.
package testkit
