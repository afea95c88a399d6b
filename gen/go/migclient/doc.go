// Package migclient owns what the generated clients lack: watches that resume after a
// broken connection, bearer tokens, and the reasons of errors.
package migclient
