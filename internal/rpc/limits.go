package rpc

import (
	"compress/gzip"
	"errors"
	"io"

	"connectrpc.com/connect"
)

// errInflated ends the decompression of a message that is too large.
var errInflated = errors.New("the message is too large after decompression")

// withReadLimit limits the size of a service's messages, compressed and decompressed.
// WithReadMaxBytes alone is not enough: connect-go decompresses a message above the limit to
// its end, only to report its size.
func withReadLimit(bytes int) connect.HandlerOption {
	decompressor := func() connect.Decompressor { return &limitedGzip{limit: int64(bytes) + 1} }
	compressor := func() connect.Compressor { return gzip.NewWriter(io.Discard) }
	return connect.WithHandlerOptions(
		connect.WithReadMaxBytes(bytes), connect.WithCompression("gzip", decompressor, compressor))
}

// limitedGzip decompresses at most limit bytes of each message, and then fails. limit is one
// byte more than a message may have, so that connect-go detects a message that is too large.
type limitedGzip struct {
	gzip.Reader
	limit, left int64
}

// Reset implements connect.Decompressor.
func (g *limitedGzip) Reset(r io.Reader) error {
	g.left = g.limit
	return g.Reader.Reset(r)
}

// Read implements io.Reader.
func (g *limitedGzip) Read(p []byte) (int, error) {
	if g.left == 0 {
		return 0, errInflated
	}
	n, err := g.Reader.Read(p[:min(int64(len(p)), g.left)])
	g.left -= int64(n)
	return n, err
}
