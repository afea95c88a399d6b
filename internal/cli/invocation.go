package cli

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/alecthomas/kong"

	"github.com/mig-controller/mig-controller/gen/go/migcontroller/v1/migcontrollerv1connect"
)

const (
	// pageSize is the controller's maximum page size.
	pageSize = 1000
	// responseLimit is the maximum response size in bytes.
	responseLimit = 64 << 20
)

// invocation is the execution of one command line.
type invocation struct {
	program
	globals
	// atLineStart is set once stderr is at the start of a line after an echoed ^C.
	atLineStart bool
	// node is the selected command in the grammar; nil if parsing failed earlier.
	node *kong.Node
	// address is the controller's URL; empty before dial.
	address   string
	transport *http.Transport
	client    migcontrollerv1connect.AdminServiceClient
	access    migcontrollerv1connect.AccessServiceClient
	// credentials are those of the target; nil before dial, and without a token.
	credentials *credentials
}

func newInvocation(p program, g globals) *invocation {
	in := &invocation{program: p, globals: g}
	if p.stderrWidth() > 0 && !in.structured() {
		in.stderr = wrapWriter{p.stderr, p.stderrWidth}
	}
	return in
}

// dial determines the controller and creates the client. It does not connect.
func (in *invocation) dial() error {
	t, err := in.findTarget()
	if err != nil {
		return err
	}
	in.address = t.Address
	in.transport = &http.Transport{
		Proxy:               http.ProxyFromEnvironment,
		DialContext:         (&net.Dialer{Timeout: 5 * time.Second}).DialContext,
		TLSHandshakeTimeout: 5 * time.Second,
		MaxIdleConnsPerHost: broadcastLimit,
		ForceAttemptHTTP2:   true,
	}
	url := in.address
	if path := t.socket(); path != "" {
		url = "http://localhost" // for the header Host
		in.transport.Proxy = nil
		in.transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{Timeout: 5 * time.Second}).DialContext(ctx, "unix", path)
		}
	}
	options, err := in.connectTo(t)
	if err != nil {
		return err
	}
	client := &http.Client{Transport: in.transport, CheckRedirect: noRedirect}
	in.client = migcontrollerv1connect.NewAdminServiceClient(client, url, options...)
	in.access = migcontrollerv1connect.NewAccessServiceClient(client, url, options...)
	return nil
}

// noRedirect does not follow redirects, so that the token is never sent to another server.
func noRedirect(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

// freshLine starts a new line after an interrupt, which a terminal echoes as ^C.
func (in *invocation) freshLine() {
	if in.stderrTTY && !in.atLineStart {
		fmt.Fprintln(in.stderr)
	}
	in.atLineStart = true
}

func (in *invocation) close() {
	if in.transport != nil {
		in.transport.CloseIdleConnections()
	}
}

// callRPC makes one call with a timeout of --timeout plus extra. If the controller refuses a
// token that can be renewed, it renews the token and calls once more.
func callRPC[Req, Res any](
	ctx context.Context, in *invocation, extra time.Duration, call func(context.Context, *Req) (*Res, error), req *Req,
) (*Res, error) {
	once := func() (*Res, error) {
		ctx, cancel := context.WithTimeout(ctx, time.Duration(in.Timeout)+extra)
		defer cancel()
		return call(ctx, req)
	}
	used, err := in.credentials.use(ctx)
	if err != nil {
		return nil, err
	}
	res, err := once()
	if renewed, failed := in.credentials.renew(ctx, used, err); failed != nil {
		return nil, failed
	} else if renewed {
		return once()
	}
	return res, err
}

// listPages collects entries page by page, up to limit; 0 means all. It reports whether
// there are more.
func listPages[T any](limit int, page func(size int32, token string) ([]T, string, error)) (all []T, more bool, err error) {
	for token := ""; ; {
		size := pageSize
		if limit > 0 {
			size = min(limit-len(all), pageSize)
		}
		entries, next, err := page(int32(size), token)
		if err != nil {
			return nil, false, err
		}
		all = append(all, entries...)
		if next == "" || next == token || limit > 0 && len(all) >= limit {
			return all, next != "", nil
		}
		token = next
	}
}
