package registration_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/internal/fleet"
	"github.com/mig-controller/mig-controller/internal/registration"
)

// Each source returns its token and when it is assumed to expire: an hour after the file
// was written, otherwise an hour from now.
func TestSourcesGiveTheirToken(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "token")
	written := start.Add(-20 * time.Minute)
	writeToken(t, file, "\n\t "+secret+" \r\n", written)
	for name, c := range map[string]struct {
		source registration.TokenSource
		token  string
		made   time.Time
		says   string
	}{
		"static": {registration.StaticToken(secret, clock), secret, start, "a fixed token"},
		"file":   {registration.TokenFile(file), secret, written, file},
		"sample": {registration.SampleToken(clock), "SAMPLE-TOKEN-THAT-REGISTERS-NOTHING", start, "sample"},
	} {
		token, expiresAt, err := c.source.Token(t.Context())
		require.NoError(t, err, name)
		require.Equal(t, c.token, token, name)
		require.True(t, c.made.Add(time.Hour).Equal(expiresAt), "%s: %s", name, expiresAt)
		require.Contains(t, c.source.String(), c.says, name)
	}
}

// A token file can be replaced, removed and restored while the controller runs.
func TestTokenFileIsReadEachTime(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "token")
	s := registration.TokenFile(file)
	_, _, err := s.Token(t.Context())
	require.ErrorIs(t, err, fleet.ErrNoToken)
	require.ErrorIs(t, err, os.ErrNotExist)
	for _, want := range []string{"first", "second"} {
		require.NoError(t, os.WriteFile(file, []byte(want), 0o600))
		token, _, err := s.Token(t.Context())
		require.NoError(t, err)
		require.Equal(t, want, token)
	}
	require.NoError(t, os.Remove(file))
	_, _, err = s.Token(t.Context())
	require.ErrorIs(t, err, fleet.ErrNoToken)
}

// A file without a well-formed token gives an error that names the file but not its
// content.
func TestBadTokenFiles(t *testing.T) {
	t.Parallel()
	for name, content := range map[string]string{
		"empty": "", "blank": " \n", "two lines": secret + "\n" + secret, "space": secret + " x",
		"control": secret + "\x00", "delete": secret + "\x7f", "byte order mark": "\ufeff" + secret,
		"not ASCII": secret + "é", "not UTF-8": secret + "\xff",
		"too long":             strings.Repeat("x", 4<<10+1),
		"too long with spaces": secret + strings.Repeat("\n", 4<<10),
	} {
		file := filepath.Join(t.TempDir(), "token")
		require.NoError(t, os.WriteFile(file, []byte(content), 0o600))
		token, _, err := registration.TokenFile(file).Token(t.Context())
		require.ErrorIs(t, err, fleet.ErrNoToken, name)
		require.ErrorContains(t, err, file, name)
		require.NotContains(t, err.Error(), secret, name)
		require.Empty(t, token, name)
	}
	file := filepath.Join(t.TempDir(), "token")
	longest := strings.Repeat("x", 4<<10)
	require.NoError(t, os.WriteFile(file, []byte(longest), 0o600))
	token, _, err := registration.TokenFile(file).Token(t.Context())
	require.NoError(t, err)
	require.Equal(t, longest, token)
}

// A file that is not regular is rejected immediately: opening a pipe would block.
func TestTokenFileMustBeRegular(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	pipe := filepath.Join(dir, "pipe")
	require.NoError(t, syscall.Mkfifo(pipe, 0o600))
	for _, path := range []string{dir, pipe} {
		_, _, err := registration.TokenFile(path).Token(t.Context())
		require.ErrorIs(t, err, fleet.ErrNoToken)
		require.ErrorContains(t, err, "not a regular file")
	}
}

// A static token that no agent could use is rejected.
func TestBadStaticTokens(t *testing.T) {
	t.Parallel()
	for _, bad := range []string{"", secret + "\n", " " + secret, strings.Repeat(secret, 1000)} {
		_, _, err := registration.StaticToken(bad, clock).Token(t.Context())
		require.ErrorIs(t, err, fleet.ErrNoToken)
		require.NotContains(t, err.Error(), secret)
	}
}

// A caller whose context has ended gets no token.
func TestSourcesStopWithTheirContext(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	token, _, err := registration.StaticToken(secret, clock).Token(ctx)
	require.ErrorIs(t, err, context.Canceled)
	require.Empty(t, token)
}

// An old file is used anyway: its token may be valid for longer.
func TestOldTokenFileIsUsed(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "token")
	writeToken(t, file, secret, start.Add(-48*time.Hour))
	token, expiresAt, err := registration.TokenFile(file).Token(t.Context())
	require.NoError(t, err)
	require.Equal(t, secret, token)
	require.True(t, start.Add(-47*time.Hour).Equal(expiresAt), expiresAt)
}
