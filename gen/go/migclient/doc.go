// Package migclient owns what programs need beside the generated clients: watching
// without an end, tokens, and the reasons of errors.
package migclient
