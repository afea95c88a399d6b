// Package e2e tests the controller's promises from outside: whole controllers on real
// sockets and real SQLite files, agents built with grpc-go like those in the field, and
// operators that use Connect, gRPC and plain HTTP.
//
// It contains only tests. Each is named after the promise that it defends.
package e2e
