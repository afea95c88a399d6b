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
	// Option names the option that names another address.
	Option string
	// Host is an IP address; empty for all interfaces.
	Host, Port string
	// Replaceable is whether a taken port may be replaced by a free one.
	Replaceable bool
}

// String returns the address as HOST:PORT.
func (a Address) String() string { return net.JoinHostPort(a.Host, a.Port) }

// Listen listens on a. If its port is taken the error names the option, or another port is
// used, with a warning.
func Listen(ctx context.Context, a Address, log *slog.Logger) (net.Listener, error) {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", a.String())
	if errors.Is(err, syscall.EADDRINUSE) && a.Replaceable {
		log.Warn("the default port is taken; a free one is used", optionKey, a.Option, addressKey, a.String())
		l, err = lc.Listen(ctx, "tcp", net.JoinHostPort(a.Host, "0"))
	}
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, fmt.Errorf("%w: another program listens there; --%s names another port", err, a.Option)
	}
	return l, err
}
