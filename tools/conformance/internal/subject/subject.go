// Package subject owns the program that the connectrpc conformance suite tests: a whole
// controller that also serves the suite's service.
package subject

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"

	"connectrpc.com/connect"
	"github.com/mig-controller/mig-controller/internal/app"
	"github.com/mig-controller/mig-controller/internal/config"
	"github.com/mig-controller/mig-controller/internal/rpc"
	"google.golang.org/protobuf/proto"

	conformancev1 "github.com/mig-controller/mig-controller/tools/conformance/gen/connectrpc/conformance/v1"
	"github.com/mig-controller/mig-controller/tools/conformance/gen/connectrpc/conformance/v1/conformancev1connect"
	"github.com/mig-controller/mig-controller/tools/conformance/internal/answer"
)

// maxRequest bounds the suite's configuration: a certificate, its key and little else.
const maxRequest = 1 << 20

// Run reads the suite's configuration from in, serves its service on both addresses of a
// controller, and writes one of the addresses to out: that of --http-addr or --grpc-addr,
// depending on port ("http" or "grpc"). It returns when ctx ends.
func Run(ctx context.Context, port string, in io.Reader, out io.Writer) (err error) {
	var want conformancev1.ServerCompatRequest
	if err := readMessage(in, &want); err != nil {
		return fmt.Errorf("read what to serve: %w", err)
	}
	dir, err := os.MkdirTemp("", "conformance-subject-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	options, err := options(dir, &want)
	if err != nil {
		return err
	}
	log := slog.New(slog.DiscardHandler) // most messages are caused by the suite on purpose
	a, err := app.NewWith(ctx, options, log, io.Discard, extra(&want))
	if err != nil {
		return err
	}
	found := map[string]string{"http": a.HTTPAddr(), "grpc": a.GRPCAddr()}[port]
	if err := reply(out, found, &want); err != nil {
		return errors.Join(err, a.Close())
	}
	return a.Run(ctx)
}

func options(dir string, want *conformancev1.ServerCompatRequest) (config.Options, error) {
	o := config.Defaults()
	o.HTTPAddr, o.GRPCAddr, o.DataDir = "127.0.0.1:0", "127.0.0.1:0", filepath.Join(dir, "data")
	if !want.GetUseTls() {
		return o, nil
	}
	o.TLSCert, o.TLSKey = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	return o, errors.Join(
		os.WriteFile(o.TLSCert, want.GetServerCreds().GetCert(), 0o600),
		os.WriteFile(o.TLSKey, want.GetServerCreds().GetKey(), 0o600),
	)
}

// extra returns the suite's service, with the message limit that the suite requires
// instead of the controller's own.
func extra(want *conformancev1.ServerCompatRequest) rpc.Extra {
	return func(options ...connect.HandlerOption) (string, http.Handler) {
		if limit := want.GetMessageReceiveLimit(); limit > 0 {
			options = append(options, connect.WithReadMaxBytes(int(limit)))
		}
		return conformancev1connect.NewConformanceServiceHandler(answer.Service{}, options...)
	}
}

// reply sends the address to the suite. From then on connections are queued until they
// are accepted.
func reply(out io.Writer, addr string, want *conformancev1.ServerCompatRequest) error {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return err
	}
	number, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return err
	}
	return writeMessage(out, &conformancev1.ServerCompatResponse{
		Host: host, Port: uint32(number), PemCert: want.GetServerCreds().GetCert(),
	})
}

// readMessage reads a message with a length prefix of four bytes, big-endian.
func readMessage(in io.Reader, m proto.Message) error {
	var size [4]byte
	if _, err := io.ReadFull(in, size[:]); err != nil {
		return err
	}
	n := binary.BigEndian.Uint32(size[:])
	if n > maxRequest {
		return fmt.Errorf("a message of %d bytes; at most %d are read", n, maxRequest)
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(in, b); err != nil {
		return err
	}
	return proto.Unmarshal(b, m)
}

// writeMessage writes a message in the format of readMessage.
func writeMessage(out io.Writer, m proto.Message) error {
	b, err := proto.Marshal(m)
	if err != nil {
		return err
	}
	_, err = out.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(b))), b...))
	return err
}
