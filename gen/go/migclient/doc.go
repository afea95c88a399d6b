// Package migclient owns what programs need in addition to the generated clients:
// credentials, endless watches, and the reasons of errors.
package migclient
