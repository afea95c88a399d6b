package cli

import (
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"

	"connectrpc.com/connect"

	"github.com/mig-controller/mig-controller/gen/go/migclient"
)

const (
	defaultAddress = "http://localhost:8080"
	addressEnv     = "MIGCTL_ADDRESS"
	caFileEnv      = "MIGCTL_CA_FILE"
	tokenEnv       = "MIGCTL_TOKEN" //nolint:gosec // a variable name, not a token
	// tokenLimit is the maximum length of a token in bytes.
	tokenLimit = 16 << 10
)

// target is a controller's address and credentials, from a context of the config file or
// from flags and the environment.
type target struct {
	Address string `yaml:"address" json:"address"`
	// CAFile contains the CA certificates to trust instead of the system's.
	CAFile string `yaml:"ca_file,omitempty" json:"ca_file,omitempty"`
	// CertFile and KeyFile are the client certificate and its key.
	CertFile string `yaml:"cert_file,omitempty" json:"cert_file,omitempty"`
	KeyFile  string `yaml:"key_file,omitempty" json:"key_file,omitempty"`
	// ServerName is the name that the controller's certificate must have; if empty, it is
	// the host of the address.
	ServerName         string `yaml:"server_name,omitempty" json:"server_name,omitempty"`
	InsecureSkipVerify bool   `yaml:"insecure_skip_verify,omitempty" json:"insecure_skip_verify,omitempty"`
	// At most one of Token, TokenFile and TokenCommand is set. The token is sent as a bearer
	// token. TokenCommand is for the shell; it prints the token.
	Token        string `yaml:"token,omitempty" json:"token,omitempty"`
	TokenFile    string `yaml:"token_file,omitempty" json:"token_file,omitempty"`
	TokenCommand string `yaml:"token_command,omitempty" json:"token_command,omitempty"`
	// PlaintextToken allows sending the token to other machines over http.
	PlaintextToken bool `yaml:"plaintext_token,omitempty" json:"plaintext_token,omitempty"`

	// source is the origin of the fields for error messages, such as "context lab".
	// caSource and tokenSource are set if CAFile or the token has a different origin.
	source, caSource, tokenSource string
}

// findTarget determines the controller from --address, --context, MIGCTL_ADDRESS, the
// current context or the default, in this order of precedence. The token comes from
// --token-file, the context named by --context, MIGCTL_TOKEN or the current context; the
// CA file has the same order of precedence.
func (in *invocation) findTarget() (target, error) {
	t, err := in.findController()
	if err != nil {
		return target{}, err
	}
	if in.PlaintextToken != nil {
		t.PlaintextToken = *in.PlaintextToken
	}
	named := in.Context != "" && in.Address == ""
	switch env := in.environ[caFileEnv]; {
	case in.CAFile != nil:
		t.CAFile, t.caSource = *in.CAFile, "--ca-file"
		if t.CAFile == "" {
			return target{}, usage("--ca-file must name a file")
		}
	case env != "" && !named && strings.HasPrefix(t.Address, "https:"):
		t.CAFile, t.caSource = env, caFileEnv
	}
	switch env := in.environ[tokenEnv]; {
	case in.TokenFile != nil:
		t = t.withToken("--token-file")
		t.TokenFile = *in.TokenFile
		if t.TokenFile == "" {
			return target{}, usage("--token-file must name a file")
		}
	case env != "" && !named && t.socket() == "":
		t = t.withToken(tokenEnv)
		t.Token = env
	}
	return t, nil
}

func (in *invocation) findController() (target, error) {
	if in.Address != "" {
		address, err := checkAddress("--address", in.Address)
		return target{Address: address}, err
	}
	if env := in.environ[addressEnv]; env != "" && in.Context == "" {
		address, err := checkAddress(addressEnv, env)
		return target{Address: address}, err
	}
	c, err := in.loadConfig()
	if err != nil {
		return target{}, err
	}
	name := cmp.Or(in.Context, c.Current)
	if name == "" {
		return target{Address: defaultAddress}, nil
	}
	t, known := c.Contexts[name]
	if !known {
		return target{}, noContext(name)
	}
	if t.Token != "" {
		path, _ := in.configPath()
		in.warnReadable(path)
	}
	t.source = "context " + name
	t.Address, err = checkAddress(t.fieldName("address"), t.Address)
	return t, err
}

// withToken returns the target without its token, for another one from source.
func (t target) withToken(source string) target {
	t.Token, t.TokenFile, t.TokenCommand, t.tokenSource = "", "", "", source
	return t
}

// unixScheme begins the address of a controller's control socket.
const unixScheme = "unix://"

// socket returns the path of the control socket to connect to, or "" for an http or https
// address.
func (t target) socket() string {
	path, _ := strings.CutPrefix(t.Address, unixScheme)
	if path == t.Address {
		return ""
	}
	return path
}

// checkAddress validates the address, and adds http:// if it has no scheme.
func checkAddress(what, address string) (string, error) {
	if path, socket := strings.CutPrefix(address, unixScheme); socket {
		if !filepath.IsAbs(path) {
			return "", usage("%s must have the absolute path of a socket after unix://", what)
		}
		return address, nil
	}
	if !strings.Contains(address, "://") {
		address = "http://" + address
	}
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return "", usage("%s must be a URL such as http://localhost:8080", what)
	}
	return strings.TrimSuffix(u.String(), "/"), nil
}

func (t target) fieldName(field string) string {
	switch {
	case field == "ca_file" && t.caSource != "":
		return t.caSource
	case t.source == "":
		return field
	default:
		return t.source + ": " + field
	}
}

// invalid returns the usage error for a field that violates a rule.
func (t target) invalid(field, rule string, args ...any) error {
	return usage("%s %s", t.fieldName(field), fmt.Sprintf(rule, args...))
}

// connectTo configures the transport for the target and returns the client options. It
// warns about unsafe settings, and returns an error for the first invalid field.
func (in *invocation) connectTo(t target) ([]connect.ClientOption, error) {
	secure, err := t.tlsConfig()
	if err != nil {
		return nil, err
	}
	if t.InsecureSkipVerify {
		in.warnf("insecure_skip_verify is on: any server that answers at %s is trusted as the controller", t.Address)
	}
	in.transport.TLSClientConfig = secure
	options := []connect.ClientOption{connect.WithReadMaxBytes(responseLimit)}
	bearer, err := in.bearer(t)
	if bearer != nil {
		options = append(options, bearer)
	}
	return options, err
}

// firstTLSField returns the name of the first TLS field that is set, or "".
func (t target) firstTLSField() string {
	switch {
	case t.CAFile != "":
		return "ca_file"
	case t.CertFile != "":
		return "cert_file"
	case t.KeyFile != "":
		return "key_file"
	case t.ServerName != "":
		return "server_name"
	case t.InsecureSkipVerify:
		return "insecure_skip_verify"
	default:
		return ""
	}
}

// checkTarget returns an error for the first invalid field.
func (in *invocation) checkTarget(t target) error {
	if _, err := t.tlsConfig(); err != nil {
		return err
	}
	_, err := in.bearer(t)
	return err
}

// tlsConfig validates the TLS fields and returns their tls.Config.
func (t target) tlsConfig() (*tls.Config, error) {
	if set := t.firstTLSField(); set != "" && !strings.HasPrefix(t.Address, "https:") {
		return nil, t.invalid(set, "must not be given without an https address")
	}
	secure := &tls.Config{
		MinVersion: tls.VersionTLS12, ServerName: t.ServerName,
		InsecureSkipVerify: t.InsecureSkipVerify, //nolint:gosec // requested explicitly, with a warning
	}
	if t.CAFile != "" {
		certificates, err := os.ReadFile(t.CAFile)
		if err != nil {
			return nil, t.invalid("ca_file", "must be a readable file: %v", err)
		}
		secure.RootCAs = x509.NewCertPool()
		if !secure.RootCAs.AppendCertsFromPEM(certificates) {
			return nil, t.invalid("ca_file", "must contain a PEM certificate: %s contains none", t.CAFile)
		}
	}
	switch {
	case t.CertFile == "" && t.KeyFile == "":
		return secure, nil
	case t.KeyFile == "":
		return nil, t.invalid("key_file", "must be given with cert_file")
	case t.CertFile == "":
		return nil, t.invalid("cert_file", "must be given with key_file")
	}
	if _, err := tls.LoadX509KeyPair(t.CertFile, t.KeyFile); err != nil {
		return nil, t.invalid("cert_file and key_file", "must be a PEM certificate and its key: %v", err)
	}
	secure.GetClientCertificate = migclient.ClientCertificate(t.CertFile, t.KeyFile)
	return secure, nil
}

// warnReadable warns if a file with a secret is readable by other users.
func (in *invocation) warnReadable(path string) {
	info, err := os.Stat(path)
	// Windows has no such mode bits; a pipe has no other readers.
	if err == nil && info.Mode().IsRegular() && info.Mode().Perm()&0o044 != 0 && runtime.GOOS != "windows" {
		in.warnf("%s contains a token and is readable by other users: run chmod 600 %s", path, path)
	}
}

func (in *invocation) warnf(format string, args ...any) {
	fmt.Fprintf(in.stderr, "migctl: warning: %s\n", printable(fmt.Sprintf(format, args...)))
}

// absolute resolves relative file paths against dir.
func (t target) absolute(dir string) target {
	for _, path := range []*string{&t.CAFile, &t.CertFile, &t.KeyFile, &t.TokenFile} {
		if *path != "" && !filepath.IsAbs(*path) {
			*path = filepath.Join(dir, *path)
		}
	}
	return t
}

// certificateRefused reports whether err may be due to the client certificate or the lack of one.
// With TLS 1.3 the alert arrives after the handshake, and is lost if a request is being written.
func certificateRefused(err error) bool {
	text := err.Error()
	return strings.Contains(text, "remote error: tls:") || strings.Contains(text, "client conn could not be established") ||
		strings.Contains(text, `"https://`) && (errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET))
}

// tlsHint returns a hint for a failed TLS handshake, or "" if err is not one.
func tlsHint(err error) string {
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		return "If its certificate is self-signed or from a private CA, name the PEM file to check\n  it with: --ca-file FILE, MIGCTL_CA_FILE or a context."
	}
	if _, ok := errors.AsType[x509.HostnameError](err); ok {
		return "Use an address that the certificate covers, or store the name that it has:\n  migctl config set-context NAME --server-name HOST."
	}
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return "The controller's certificate is invalid: whoever runs the controller has to replace it."
	}
	if _, ok := errors.AsType[tls.RecordHeaderError](err); ok || strings.Contains(err.Error(), "HTTP response to HTTPS client") {
		return "The server does not use TLS. Try the same address with http://."
	}
	if certificateRefused(err) {
		return "The server may require a client certificate, or another one: migctl config\n  set-context NAME --cert-file FILE --key-file FILE."
	}
	return ""
}
