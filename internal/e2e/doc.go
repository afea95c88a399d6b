// Package e2e holds the controller to its promises from outside: whole
// controllers on real sockets and real SQLite files, agents made of grpc-go as
// those in the field are, and operators who use Connect, gRPC and plain HTTP.
//
// It has tests only. Each is named after the promise that it defends.
package e2e
