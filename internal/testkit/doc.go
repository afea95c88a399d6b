// Package testkit owns what several test packages need: the failures that they inject, such as
// dead links, malformed messages and full disks, a log that is read while it is written, and
// Prometheus with the dashboard.
package testkit
