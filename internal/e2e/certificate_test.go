package e2e

import (
	"bytes"
	"cmp"
	"crypto/x509"
	"encoding/pem"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/internal/cli"
	"github.com/mig-controller/mig-controller/internal/config"
)

// recipe returns the shell commands of docs/operations.md that create a certificate.
func recipe(t *testing.T) string {
	t.Helper()
	page, err := os.ReadFile(filepath.Join("..", "..", "docs", "operations.md"))
	require.NoError(t, err)
	_, rest, begun := strings.Cut(string(page), "```sh\nopenssl req ")
	commands, _, ended := strings.Cut(rest, "./bin/controller ")
	require.True(t, begun && ended, "docs/operations.md makes a certificate and starts a controller with it")
	return "openssl req " + commands
}

// The certificate that docs/operations.md creates is accepted by clients, including those
// that are stricter than openssl: it is a server certificate, not a CA certificate.
func TestCertificateOfTheDocument(t *testing.T) {
	t.Parallel()
	needs(t, "openssl")
	dir := t.TempDir()
	inDir(t, dir, nil, "sh", "-ec", recipe(t))
	certificate := filepath.Join(dir, "controller.pem")

	content, err := os.ReadFile(certificate)
	require.NoError(t, err)
	block, _ := pem.Decode(content)
	require.NotNil(t, block)
	leaf, err := x509.ParseCertificate(block.Bytes)
	require.NoError(t, err)
	require.True(t, leaf.BasicConstraintsValid)
	require.False(t, leaf.IsCA, "rustls clients do not accept a CA certificate from a server")
	trusted := x509.NewCertPool()
	trusted.AddCert(leaf)
	for _, name := range []string{"localhost", "127.0.0.1"} {
		_, err = leaf.Verify(x509.VerifyOptions{DNSName: name, Roots: trusted})
		require.NoError(t, err, name)
	}
	inDir(t, dir, nil, "openssl", "verify", "-x509_strict", "-purpose", "sslserver",
		"-verify_hostname", "localhost", "-CAfile", certificate, certificate)

	c := start(t, func(o *config.Options) { o.TLSCert, o.TLSKey = certificate, filepath.Join(dir, "controller-key.pem") })
	url := "https://" + c.httpAddr
	t.Run("migctl", func(t *testing.T) {
		t.Parallel()
		var out, trouble bytes.Buffer
		code := cli.Main([]string{"vms", "--address", url, "--ca-file", certificate}, strings.NewReader(""), &out, &trouble)
		require.Zero(t, code, trouble.String())
	})
	// Each prints the answer of /ready.
	python := cmp.Or(os.Getenv("PYTHON"), "python3")
	for name, args := range map[string][]string{
		"curl": {"--silent", "--show-error", "--cacert", certificate, url + "/ready"},
		python: {"-c", withPython},
		"node": {"-e", withNode},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			needs(t, name)
			got := inDir(t, dir, []string{"URL=" + url + "/ready", "CA=" + certificate}, name, args...)
			require.JSONEq(t, `{"status":"ready"}`, got)
		})
	}
}

// withPython enables the strictest checks, which are the default since 3.13.
const withPython = `
import os, ssl, urllib.request
trust = ssl.create_default_context(cafile=os.environ["CA"])
trust.verify_flags |= ssl.VERIFY_X509_STRICT
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=trust))
print(opener.open(os.environ["URL"], timeout=30).read().decode())
`

const withNode = `
const { URL: url, CA: file } = process.env;
require("https").get(url, { ca: require("fs").readFileSync(file) }, (answer) => answer.pipe(process.stdout));
`

func needs(t *testing.T, program string) {
	t.Helper()
	_, err := exec.LookPath(program)
	require.NoError(t, err, "make test installs it")
}

// inDir runs a program and returns what it prints.
func inDir(t *testing.T, dir string, env []string, name string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), env...)
	var out, trouble bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &trouble
	require.NoError(t, cmd.Run(), "%s: %s%s", name, out.String(), trouble.String())
	return out.String()
}
