package httpserver

import (
	"crypto/tls"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/internal/testkit"
)

// pairFiles are the files of a certificate and its key.
type pairFiles [2]string

// newPair returns the files of a new identity.
func newPair(t *testing.T) (pairFiles, testkit.Identity) {
	t.Helper()
	dir := t.TempDir()
	files, i := pairFiles{filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")}, testkit.NewIdentity(t, testkit.FarOff)
	files.write(t, i)
	return files, i
}

func (f pairFiles) write(t *testing.T, i testkit.Identity) {
	t.Helper()
	i.Write(t, f[0], f[1])
}

// certificate returns the Certificate of the files.
func (f pairFiles) certificate(log *slog.Logger) (*Certificate, error) {
	return NewCertificate(f, func() (*tls.Certificate, error) {
		pair, err := tls.LoadX509KeyPair(f[0], f[1])
		return &pair, err
	}, log, nil)
}

// serverTLS returns the TLS configuration of a server with a new identity.
func serverTLS(t *testing.T) (*tls.Config, testkit.Identity) {
	t.Helper()
	files, i := newPair(t)
	cert, err := files.certificate(quiet())
	require.NoError(t, err)
	return cert.ServerConfig(), i
}

// A certificate that has expired or is not valid yet is used, with a warning.
func TestExpiredCertificate(t *testing.T) {
	t.Parallel()
	files, _ := newPair(t)
	var logged output
	log := logTo(&logged, slog.LevelInfo)
	_, err := files.certificate(log)
	require.NoError(t, err)
	require.Empty(t, logged.String())
	files.write(t, testkit.NewIdentity(t, time.Unix(1, 0)))
	_, err = files.certificate(log)
	require.NoError(t, err)
	require.Contains(t, logged.String(), `level=WARN msg="the certificate is not valid now`)
	require.Contains(t, logged.String(), "valid_until=1970-01-01T00:00:01.000Z")

	files, _ = newPair(t)
	c, err := files.certificate(log)
	require.NoError(t, err)
	require.NotContains(t, logged.String(), "valid_from=2100")
	early := *c.current.Load().Leaf
	early.NotBefore, early.NotAfter = testkit.FarOff, testkit.FarOff.AddDate(1, 0, 0)
	c.warnOfTime(&tls.Certificate{Leaf: &early})
	require.Contains(t, logged.String(), "valid_from=2100-01-01T00:00:00.000Z")
}

// A renewed certificate is used without a restart. An unusable one does not replace the old
// one and is logged once; a partly written one does not replace it either.
func TestCertificateIsRenewed(t *testing.T) {
	t.Parallel()
	files, first := newPair(t)
	second := testkit.NewIdentity(t, testkit.FarOff)
	synctest.Test(t, func(t *testing.T) {
		var logged output
		c, err := files.certificate(logTo(&logged, slog.LevelInfo))
		require.NoError(t, err)
		config := c.ServerConfig()
		shows := func(want testkit.Identity) {
			t.Helper()
			got, err := config.GetCertificate(nil)
			require.NoError(t, err)
			require.Equal(t, want.Leaf.Raw, got.Leaf.Raw)
		}
		shows(first)
		require.NoError(t, os.WriteFile(files[0], second.Chain, 0o600))
		for range 3 {
			time.Sleep(checkInterval) // fake clock
			shows(first)
		}
		require.Equal(t, 1, strings.Count(logged.String(), `level=WARN msg="the new certificate cannot be used; the old one is kept"`))
		require.Contains(t, logged.String(), "private key does not match public key")
		require.NoError(t, os.Remove(files[1]))
		for range 3 {
			time.Sleep(checkInterval) // fake clock
			shows(first)
		}
		require.Equal(t, 2, strings.Count(logged.String(), "WARN"))
		files.write(t, second)
		shows(first) // it has just been looked at
		for range 3 {
			time.Sleep(checkInterval) // fake clock
			shows(second)
		}
		require.Equal(t, 1, strings.Count(logged.String(), `level=INFO msg="the certificate was renewed"`))
		require.Equal(t, 2, strings.Count(logged.String(), "WARN"))
	})
}

// A handshake does not wait while the files are checked.
func TestHandshakeDoesNotWaitForTheFiles(t *testing.T) {
	t.Parallel()
	files, first := newPair(t)
	c, err := files.certificate(quiet())
	require.NoError(t, err)
	c.checking.Lock()
	defer c.checking.Unlock()
	c.lastCheck = time.Time{}
	got, err := c.ServerConfig().GetCertificate(&tls.ClientHelloInfo{})
	require.NoError(t, err)
	require.Equal(t, first.Leaf.Raw, got.Leaf.Raw)
}
