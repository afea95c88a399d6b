// Package load owns the VMs that a server is measured with: agents with grpc-go clients,
// each with a connection of its own unless they are behind a proxy, and the operator that
// sends them commands. It shares the machine with the server, so it is lean: heartbeats are
// encoded once and buffers are small.
package load

import (
	"crypto/tls"
	"fmt"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"
)

// streamMethod is the agents' stream.
const streamMethod = "/miglet.commands.CommandService/StreamCommands"

// encoded is an encoded message.
type encoded []byte

// codec sends encoded messages unchanged, and Protobuf messages as usual.
type codec struct{}

// Name is the content subtype.
func (codec) Name() string { return "proto" }

// Marshal encodes v.
func (codec) Marshal(v any) (mem.BufferSlice, error) {
	switch v := v.(type) {
	case encoded:
		return mem.BufferSlice{mem.SliceBuffer(v)}, nil
	case proto.Message:
		b, err := proto.Marshal(v)
		return mem.BufferSlice{mem.SliceBuffer(b)}, err
	default:
		return nil, fmt.Errorf("cannot send a %T", v)
	}
}

// Unmarshal decodes a received message into v.
func (codec) Unmarshal(data mem.BufferSlice, v any) error {
	m, ok := v.(proto.Message)
	if !ok {
		return fmt.Errorf("cannot receive a %T", v)
	}
	return proto.Unmarshal(data.Materialize(), m)
}

// connectWithin is how long a connection may take, as in grpc-go by default.
const connectWithin = 20 * time.Second

// window is the minimum that HTTP/2 allows.
const window = 64 << 10

// proxied are the options of a connection that many VMs share: it has larger buffers than
// that of a single VM.
var proxied = []grpc.DialOption{
	grpc.WithReadBufferSize(32 << 10), grpc.WithWriteBufferSize(32 << 10), grpc.WithStaticConnWindowSize(16 * window),
}

// dial returns a connection with the small buffers of a single VM unless more options say
// otherwise, with TLS unless secure is nil. The first stream opens it.
func dial(addr string, secure *tls.Config, more ...grpc.DialOption) (*grpc.ClientConn, error) {
	transport := insecure.NewCredentials()
	if secure != nil {
		transport = credentials.NewTLS(secure)
	}
	return grpc.NewClient("passthrough:///"+addr, append([]grpc.DialOption{
		grpc.WithTransportCredentials(transport),
		grpc.WithDefaultCallOptions(grpc.ForceCodecV2(codec{})),
		grpc.WithNoProxy(), grpc.WithDisableServiceConfig(), grpc.WithDisableRetry(), grpc.WithIdleTimeout(0),
		grpc.WithReadBufferSize(1 << 10), grpc.WithWriteBufferSize(4 << 10),
		grpc.WithStaticStreamWindowSize(window), grpc.WithStaticConnWindowSize(window),
		// Agents ping every 10 s, even when idle.
		grpc.WithKeepaliveParams(keepalive.ClientParameters{
			Time: 10 * time.Second, Timeout: time.Minute, PermitWithoutStream: true,
		}),
		// Agents reconnect immediately. A pause this short keeps 10,000 of them from using
		// up the processor that the server needs.
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: time.Second},
			MinConnectTimeout: connectWithin,
		}),
	}, more...)...)
}
