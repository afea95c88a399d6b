package app

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// identity is a certificate that signs itself, and its key, in PEM.
type identity struct {
	chain, key []byte
	leaf       *x509.Certificate
}

// newIdentity makes one for this machine, valid until then.
func newIdentity(t *testing.T, until time.Time) identity {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "controller"},
		DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Unix(0, 0), NotAfter: until,
		IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	require.NoError(t, err)
	leaf, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	encoded, err := x509.MarshalPKCS8PrivateKey(key)
	require.NoError(t, err)
	return identity{
		chain: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		key:   pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: encoded}),
		leaf:  leaf,
	}
}

var farOff = time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC)

// write puts the identity where the options say.
func (i identity) write(t *testing.T, o Options) {
	t.Helper()
	require.NoError(t, os.WriteFile(o.TLSCert, i.chain, 0o600))
	require.NoError(t, os.WriteFile(o.TLSKey, i.key, 0o600))
}

// tlsOptions are testOptions with a certificate.
func tlsOptions(t *testing.T) (Options, identity) {
	t.Helper()
	o, i := testOptions(t), newIdentity(t, farOff)
	dir := t.TempDir()
	o.TLSCert, o.TLSKey = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	i.write(t, o)
	return o, i
}

// Files that cannot be served with are refused, with the option and the rule, and
// nothing is left behind.
func TestTLSOptions(t *testing.T) {
	t.Parallel()
	good, other := newIdentity(t, farOff), newIdentity(t, farOff)
	dir := t.TempDir()
	file := func(name string, content []byte) string {
		path := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(path, content, 0o600))
		return path
	}
	cert, key, otherKey := file("cert", good.chain), file("key", good.key), file("other", other.key)
	text, missing := file("text", []byte("hush")), filepath.Join(dir, "missing")
	const pair = "--tls-cert and --tls-key must be a certificate and its key in PEM: "
	for _, test := range []struct{ cert, key, want string }{
		{cert, "", "--tls-cert must be given with --tls-key (from the command line)"},
		{"", key, "--tls-key must be given with --tls-cert (from the command line)"},
		{missing, key, "--tls-cert must name a file that can be read: open " + missing},
		{cert, missing, "--tls-key must name a file that can be read: open " + missing},
		{cert, dir, "--tls-key must name a file that can be read: "},
		{cert, otherKey, pair + "tls: private key does not match public key (from the command line)"},
		{text, key, pair},
		{cert, text, pair},
		{key, cert, pair},
	} {
		p := newProcess(newFakeService())
		data := filepath.Join(t.TempDir(), "data")
		args := []string{"--http-addr=127.0.0.1:0", "--grpc-addr=127.0.0.1:0", "--data-dir=" + data}
		for option, path := range map[string]string{"--tls-cert=": test.cert, "--tls-key=": test.key} {
			if path != "" {
				args = append(args, option+path)
			}
		}
		require.Equal(t, exitUsage, p.run(args), test.want)
		require.Contains(t, p.err.String(), "controller: "+test.want)
		require.NotContains(t, p.err.String(), "hush")
		require.NoDirExists(t, data)
	}
}

// A certificate that has expired, or is not valid yet, is served, and warned of.
func TestExpiredCertificate(t *testing.T) {
	t.Parallel()
	o, _ := tlsOptions(t)
	var logged output
	_, err := o.readCertificate(newLogger(o, &logged))
	require.NoError(t, err)
	require.Empty(t, logged.String())
	newIdentity(t, time.Unix(1, 0)).write(t, o)
	_, err = o.readCertificate(newLogger(o, &logged))
	require.NoError(t, err)
	require.Contains(t, logged.String(), "WARN  the certificate is not valid now")
	require.Contains(t, logged.String(), "valid_until=1970-01-01T00:00:01.000Z")

	o, _ = tlsOptions(t)
	c, err := o.readCertificate(newLogger(o, &logged))
	require.NoError(t, err)
	require.NotContains(t, logged.String(), "valid_from=2100")
	early := *c.current.Load().Leaf
	early.NotBefore, early.NotAfter = farOff, farOff.AddDate(1, 0, 0)
	c.serve(&tls.Certificate{Leaf: &early})
	require.Contains(t, logged.String(), "valid_from=2100-01-01T00:00:00.000Z")
}

// A certificate that is renewed is shown without a restart. One that is no good
// is warned of once, and does not take the place of the old one; neither does one
// that is there by half.
func TestCertificateIsRenewed(t *testing.T) {
	t.Parallel()
	o, first := tlsOptions(t)
	second := newIdentity(t, farOff)
	synctest.Test(t, func(t *testing.T) {
		var logged output
		c, err := o.readCertificate(newLogger(o, &logged))
		require.NoError(t, err)
		config := c.config()
		shows := func(want identity) {
			t.Helper()
			got, err := config.GetCertificate(nil)
			require.NoError(t, err)
			require.Equal(t, want.leaf.Raw, got.Leaf.Raw)
		}
		shows(first)
		require.NoError(t, os.WriteFile(o.TLSCert, second.chain, 0o600))
		for range 3 {
			time.Sleep(lookAgain) // fake clock
			shows(first)
		}
		require.Equal(t, 1, strings.Count(logged.String(), "WARN  the new certificate cannot be used; the old one is kept"))
		require.Contains(t, logged.String(), "private key does not match public key")
		require.NoError(t, os.Remove(o.TLSKey))
		for range 3 {
			time.Sleep(lookAgain) // fake clock
			shows(first)
		}
		require.Equal(t, 2, strings.Count(logged.String(), "WARN"))
		second.write(t, o)
		shows(first) // it has just been looked at
		for range 3 {
			time.Sleep(lookAgain) // fake clock
			shows(second)
		}
		require.Equal(t, 1, strings.Count(logged.String(), "INFO  the certificate was renewed"))
		require.Equal(t, 2, strings.Count(logged.String(), "WARN"))
	})
}

// A handshake does not wait while the files are looked at.
func TestNobodyWaitsForTheFiles(t *testing.T) {
	t.Parallel()
	o, first := tlsOptions(t)
	c, err := o.readCertificate(quiet())
	require.NoError(t, err)
	c.looking.Lock()
	defer c.looking.Unlock()
	c.looked = time.Time{}
	got, err := c.config().GetCertificate(&tls.ClientHelloInfo{})
	require.NoError(t, err)
	require.Equal(t, first.leaf.Raw, got.Leaf.Raw)
}
