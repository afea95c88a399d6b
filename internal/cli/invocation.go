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
	// pageSize is the largest page that the controller returns.
	pageSize = 1000
	// answerLimit is the largest answer, in bytes.
	answerLimit = 64 << 20
)

// invocation is one command line that runs.
type invocation struct {
	program
	globals
	// fresh is set once stderr is at the start of a line again after a ^C.
	fresh bool
	// node is the command in the grammar.
	node *kong.Node
	// address is where the controller is; empty before dial.
	address   string
	transport *http.Transport
	client    migcontrollerv1connect.AdminServiceClient
}

func newInvocation(p program, g globals) *invocation {
	in := &invocation{program: p, globals: g}
	if p.noteWidth() > 0 && !in.structured() {
		in.stderr = wrapping{p.stderr, p.noteWidth}
	}
	return in
}

// dial determines the controller and creates the client. It sends nothing.
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
	options, err := in.connectTo(t)
	if err != nil {
		return err
	}
	in.client = migcontrollerv1connect.NewAdminServiceClient(
		&http.Client{Transport: in.transport, CheckRedirect: stay}, in.address, options...,
	)
	return nil
}

// stay follows no redirect: a token is for one server only.
func stay(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

// freshLine starts a new line after an interrupt, which a terminal shows as ^C.
func (in *invocation) freshLine() {
	if in.reports && !in.fresh {
		fmt.Fprintln(in.stderr)
	}
	in.fresh = true
}

func (in *invocation) close() {
	if in.transport != nil {
		in.transport.CloseIdleConnections()
	}
}

// ask makes one call with the timeout of --timeout plus extra.
func ask[Req, Res any](
	ctx context.Context, in *invocation, extra time.Duration, call func(context.Context, *Req) (*Res, error), req *Req,
) (*Res, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Duration(in.Timeout)+extra)
	defer cancel()
	return call(ctx, req)
}

// follow gathers pages until the last, or until there are limit entries; 0 is
// all. It reports whether there are more.
func follow[T any](limit int, page func(size int32, token string) ([]T, string, error)) (all []T, more bool, err error) {
	for token := ""; ; {
		size := pageSize
		if limit > 0 {
			size = min(limit-len(all), pageSize)
		}
		got, next, err := page(int32(size), token)
		if err != nil {
			return nil, false, err
		}
		all = append(all, got...)
		if next == "" || next == token || limit > 0 && len(all) >= limit {
			return all, next != "", nil
		}
		token = next
	}
}
