package target

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

// certify creates a certificate for a controller that keeps its data in dir. It returns the
// controller's options, and the TLS configuration of its clients.
func certify(dir string) (options []string, secure *tls.Config, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("create a certificate: %w", err)
		}
	}()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return nil, nil, err
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, nil, err
	}
	for _, file := range []struct {
		option, kind string
		content      []byte
	}{{"tls-cert", "CERTIFICATE", der}, {"tls-key", "PRIVATE KEY", private}} {
		path := filepath.Join(dir, file.option+".pem")
		block := pem.EncodeToMemory(&pem.Block{Type: file.kind, Bytes: file.content})
		if err := os.WriteFile(path, block, 0o600); err != nil {
			return nil, nil, err
		}
		options = append(options, "--"+file.option+"="+path)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, nil, err
	}
	roots := x509.NewCertPool()
	roots.AddCert(leaf)
	return options, &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots}, nil
}
