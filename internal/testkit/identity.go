package testkit

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
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Identity is a certificate that signs itself, and its key, in PEM.
type Identity struct {
	Chain, Key []byte
	Leaf       *x509.Certificate
}

// NewIdentity makes one for this machine, valid until then.
func NewIdentity(t *testing.T, until time.Time) Identity {
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
	return Identity{
		Chain: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		Key:   pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: encoded}),
		Leaf:  leaf,
	}
}

// FarOff is when identities of tests expire that are not about that.
var FarOff = time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC)

// Write writes the identity to two files.
func (i Identity) Write(t *testing.T, cert, key string) {
	t.Helper()
	require.NoError(t, os.WriteFile(cert, i.Chain, 0o600))
	require.NoError(t, os.WriteFile(key, i.Key, 0o600))
}

// Trusts returns the settings of a client that knows this identity and no other.
func (i Identity) Trusts(protocols ...string) *tls.Config {
	roots := x509.NewCertPool()
	roots.AddCert(i.Leaf)
	return &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots, NextProtos: protocols}
}
