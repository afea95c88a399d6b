// Package migclient owns what programs need in addition to the generated clients: endless
// watches, tokens, and the reasons of errors.
package migclient
