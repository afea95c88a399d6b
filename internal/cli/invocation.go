package cli

import (
	"context"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"connectrpc.com/connect"

	"github.com/mig-controller/mig-controller/gen/go/migcontroller/v1/migcontrollerv1connect"
)

const (
	defaultAddress = "http://localhost:8080"
	addressEnv     = "MIGCTL_ADDRESS"
	// pageSize is the largest page that the controller gives.
	pageSize = 1000
	// answerLimit is how much one answer may hold, in bytes.
	answerLimit = 64 << 20
)

// invocation is one command line as it runs.
type invocation struct {
	program
	globals
	// address is where the controller is; empty before dial.
	address   string
	transport *http.Transport
	client    migcontrollerv1connect.AdminServiceClient
}

func newInvocation(p program, g globals) *invocation {
	return &invocation{program: p, globals: g}
}

// dial finds out where the controller is, and makes the client. Nothing is sent.
func (in *invocation) dial() error {
	address, err := in.findAddress()
	if err != nil {
		return err
	}
	in.address = address
	in.transport = &http.Transport{
		Proxy:               http.ProxyFromEnvironment,
		DialContext:         (&net.Dialer{Timeout: 5 * time.Second}).DialContext,
		TLSHandshakeTimeout: 5 * time.Second,
		MaxIdleConnsPerHost: broadcastLimit,
		ForceAttemptHTTP2:   true,
	}
	in.client = migcontrollerv1connect.NewAdminServiceClient(
		&http.Client{Transport: in.transport}, in.address, connect.WithReadMaxBytes(answerLimit),
	)
	return nil
}

func (in *invocation) close() {
	if in.transport != nil {
		in.transport.CloseIdleConnections()
	}
}

// findAddress goes by --address, --context, MIGCTL_ADDRESS, the current context
// and the default, in this order.
func (in *invocation) findAddress() (string, error) {
	if in.Address != "" {
		return checkAddress("--address", in.Address)
	}
	if env := in.environ[addressEnv]; env != "" && in.Context == "" {
		return checkAddress(addressEnv, env)
	}
	c, err := in.loadConfig()
	if err != nil {
		return "", err
	}
	name := in.Context
	if name == "" {
		name = c.Current
	}
	if name == "" {
		return defaultAddress, nil
	}
	chosen, known := c.Contexts[name]
	if !known {
		return "", noContext(name)
	}
	return checkAddress("the address of context "+name, chosen.Address)
}

// checkAddress returns the address as a URL; without a scheme it is http.
func checkAddress(what, address string) (string, error) {
	if !strings.Contains(address, "://") {
		address = "http://" + address
	}
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" {
		return "", usage("%s must be like http://localhost:8080", what)
	}
	return strings.TrimSuffix(u.String(), "/"), nil
}

// ask makes one call with the time that --timeout allows, and with extra on top.
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
