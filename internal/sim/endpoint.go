package sim

import (
	"net"
	"net/url"
	"strings"
)

const endpointRule = "must be host:port or a URL such as http://localhost:50051 or https://controller.example"

// parseEndpoint returns the base URL of a controller, without a trailing slash. A bare
// host:port means plaintext. It returns a *ConfigError.
func parseEndpoint(addr string) (string, error) {
	wrong := &ConfigError{"Controller", endpointRule}
	if !strings.Contains(addr, "://") {
		host, port, err := net.SplitHostPort(addr)
		if err != nil || host == "" || port == "" {
			return "", wrong
		}
		addr = "http://" + addr
	}
	u, err := url.Parse(addr)
	if err != nil || u.Hostname() == "" || u.RawQuery != "" || u.Fragment != "" || u.User != nil {
		return "", wrong
	}
	if u.Scheme != "http" && u.Scheme != "https" {
		return "", wrong
	}
	return strings.TrimRight(u.String(), "/"), nil
}
