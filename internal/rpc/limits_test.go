package rpc

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/binary"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/gen/go/migcontroller/v1/migcontrollerv1connect"
	"github.com/mig-controller/mig-controller/gen/go/miglet/commands/commandsconnect"
)

// compressed returns size equal bytes, compressed.
func compressed(t *testing.T, size int64) string {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	_, err := io.CopyN(w, spaces{}, size)
	require.NoError(t, err)
	require.NoError(t, w.Close())
	return b.String()
}

type spaces struct{}

func (spaces) Read(p []byte) (int, error) { return copy(p, bytes.Repeat([]byte(" "), len(p))), nil }

// At most one byte more than the limit is decompressed of a message, whatever its size.
func TestLimitedGzip(t *testing.T) {
	t.Parallel()
	const limit = 100
	g := &limitedGzip{limit: limit}
	for range 2 { // they are used again
		require.NoError(t, g.Reset(strings.NewReader(compressed(t, 1<<20))))
		got, err := io.ReadAll(g)
		require.ErrorIs(t, err, errInflated)
		require.Len(t, got, limit)
		_, err = io.Copy(io.Discard, g)
		require.ErrorIs(t, err, errInflated, "like connect-go, to determine the size")
	}
	require.NoError(t, g.Reset(strings.NewReader(compressed(t, limit-1))))
	got, err := io.ReadAll(g)
	require.NoError(t, err)
	require.Len(t, got, limit-1)
}

// On every service, unary or stream, a message whose decompressed size is too large is
// rejected without being decompressed to the end, and a smaller one is accepted.
func TestCompressedMessagesAreLimited(t *testing.T) {
	t.Parallel()
	c := config(&fakeAgents{})
	c.Commands = fakeStreams(func(_ context.Context, stream *bidiStream) error {
		_, err := stream.Receive()
		return err
	})
	base := "http://" + serve(t, NewHandler(c))
	bomb, small := compressed(t, 4<<20), compressed(t, 1<<10)
	for _, path := range []string{
		migcontrollerv1connect.AdminServiceGetCommandProcedure,
		migcontrollerv1connect.AgentServicePollCommandsProcedure,
		commandsconnect.CommandServiceStreamCommandsProcedure,
		"/grpc.health.v1.Health/Check",
		"/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
	} {
		headers := []string{"Content-Type", "application/json", "Content-Encoding", "gzip"}
		frame := func(s string) string { return s }
		if strings.HasPrefix(path, "/miglet") || strings.Contains(path, "reflection") {
			headers = []string{"Content-Type", "application/connect+json", "Connect-Content-Encoding", "gzip"}
			frame = func(s string) string {
				return "\x01" + string(binary.BigEndian.AppendUint32(nil, uint32(len(s)))) + s
			}
		}
		answer := do(t, client(t, 2), http.MethodPost, base+path, frame(bomb), headers...)
		got := unframed(t, answer.body)
		require.Contains(t, got, `"code":"resource_exhausted"`, path)
		require.Contains(t, got, errInflated.Error(), path)
		answer = do(t, client(t, 2), http.MethodPost, base+path, frame(small), headers...)
		got = unframed(t, answer.body)
		require.NotContains(t, got, "resource_exhausted", path)
		require.NotContains(t, got, "decompress", path)
	}
}

// unframed returns the text of a response, which may be one compressed frame.
func unframed(t *testing.T, body string) string {
	t.Helper()
	if body == "" || body[0]&1 == 0 {
		return body
	}
	r, err := gzip.NewReader(strings.NewReader(body[5:]))
	if err != nil {
		return body // no frame
	}
	text, err := io.ReadAll(r)
	require.NoError(t, err)
	return string(text)
}
