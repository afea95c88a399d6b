package httpserver

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"syscall"
)

// Address is where to listen.
type Address struct {
	// Option is the name of the option that changes the address.
	Option string
	// Host is an IP address; empty for all interfaces.
	Host, Port string
	// Replaceable is whether a free port may be used if this one is in use.
	Replaceable bool
}

// String returns the address as HOST:PORT.
func (a Address) String() string { return net.JoinHostPort(a.Host, a.Port) }

// Listen listens on a. If its port is in use, it uses a free one with a warning, or returns an
// error that names the option.
func Listen(ctx context.Context, a Address, log *slog.Logger) (net.Listener, error) {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", a.String())
	if errors.Is(err, syscall.EADDRINUSE) && a.Replaceable {
		log.Warn("the default port is in use; a free one is used", optionKey, a.Option, addressKey, a.String())
		l, err = lc.Listen(ctx, "tcp", net.JoinHostPort(a.Host, "0"))
	}
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, fmt.Errorf("%w: another program uses this port; choose another one with --%s", err, a.Option)
	}
	return l, err
}
