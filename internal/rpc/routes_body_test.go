package rpc

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// The limit of a body is exact, even if its length is not known in advance, and does not
// depend on its size as Protobuf.
func TestBodyLimit(t *testing.T) {
	t.Parallel()
	fake := &fakeAgents{}
	target := "http://" + serve(t, NewHandler(config(fake))) + "/api/v1/vms/vm-1/events"
	const start, end = `{"type":"x","n":[0`, `]}`
	numbers := start + strings.Repeat(",1", (maxBody-len(start)-len(end))/2) + end
	numbers += strings.Repeat(" ", maxBody-len(numbers))
	for name, version := range httpVersions {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := client(t, version)
			for size, status := range map[int]int{maxBody: 200, maxBody + 1: 413} {
				for _, chunked := range []bool{false, true} {
					var body io.Reader = strings.NewReader(numbers + strings.Repeat(" ", size-maxBody))
					if chunked {
						body = struct{ io.Reader }{body}
					}
					req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, target, body)
					require.NoError(t, err)
					req.Header.Set("Content-Type", "application/json")
					resp, err := c.Do(req)
					require.NoError(t, err)
					content, err := io.ReadAll(resp.Body)
					require.NoError(t, err)
					require.NoError(t, resp.Body.Close())
					require.Equal(t, status, resp.StatusCode, "%d bytes, chunked %v: %s", size, chunked, content)
				}
			}
		})
	}
}

// Compressed bodies are refused unread: a small one can be large when decompressed.
func TestCompressedBodiesAreRefused(t *testing.T) {
	t.Parallel()
	var compressed bytes.Buffer
	w := gzip.NewWriter(&compressed)
	_, err := w.Write([]byte(`{"type":"x"}`))
	require.NoError(t, err)
	require.NoError(t, w.Close())
	fake := &fakeAgents{}
	target := "http://" + serve(t, NewHandler(config(fake))) + "/api/v1/vms/vm-1/events"
	for _, encoding := range []string{"gzip", "br", "gzip, gzip"} {
		got := do(t, client(t, 1), "POST", target, compressed.String(), "Content-Type", "application/json", "Content-Encoding", encoding)
		require.Equal(t, 415, got.status)
		requireError(t, got)
		require.Contains(t, got.body, "Content-Encoding must be absent")
	}
	require.Zero(t, fake.calls())
}

// raw sends bytes unchanged and returns the first response.
func raw(t *testing.T, address, request string) answer {
	t.Helper()
	conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", address)
	require.NoError(t, err)
	defer func() { _ = conn.Close() }()
	require.NoError(t, conn.SetDeadline(time.Now().Add(20*time.Second)))
	_, err = io.WriteString(conn, request)
	require.NoError(t, err)
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	require.NoError(t, err)
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	return answer{resp.StatusCode, resp.Header, string(body)}
}

// Malformed requests are refused in the same form.
func TestRawRequests(t *testing.T) {
	t.Parallel()
	fake := &fakeAgents{}
	address := serve(t, NewHandler(config(fake)))
	const events = "POST /api/v1/vms/vm-1/events HTTP/1.1\r\nHost: x\r\n"
	for request, status := range map[string]int{
		"GET /api/v1/vms/../../../etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n":                                  400,
		"GET * HTTP/1.1\r\nHost: x\r\n\r\n":                                                                400,
		"GET http://x HTTP/1.1\r\nHost: x\r\n\r\n":                                                         400,
		"GET http://x/api/v1/vms/a%2fb/commands HTTP/1.1\r\nHost: x\r\n\r\n":                               400,
		"CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\n":                                                          400,
		"GET /api/v1/vms/vm-1/events HTTP/1.0\r\n\r\n":                                                     405,
		events + "Content-Type: application/json\r\nContent-Type: text/plain\r\nContent-Length: 0\r\n\r\n": 415,
		events + "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n":              400,
		events + "Content-Type: application/json\r\nContent-Length: 99999999\r\n\r\n":                      413,
	} {
		got := raw(t, address, request)
		require.Equal(t, status, got.status, request)
		requireError(t, got)
	}
	require.Zero(t, fake.calls())
}

// A truncated body is not accepted.
func TestTruncatedBody(t *testing.T) {
	t.Parallel()
	fake := &fakeAgents{}
	conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", serve(t, NewHandler(config(fake))))
	require.NoError(t, err)
	defer func() { _ = conn.Close() }()
	_, err = io.WriteString(conn, "POST /api/v1/vms/vm-1/events HTTP/1.1\r\nHost: x\r\n"+
		"Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{\"type\":\"x\"}")
	require.NoError(t, err)
	half, ok := conn.(*net.TCPConn)
	require.True(t, ok)
	require.NoError(t, half.CloseWrite())
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	require.NoError(t, err)
	defer func() { _ = resp.Body.Close() }()
	require.Equal(t, 400, resp.StatusCode)
	require.Zero(t, fake.calls())
}
