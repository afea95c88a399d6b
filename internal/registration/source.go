package registration

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/mig-controller/mig-controller/internal/fleet"
)

const (
	// tokenLifetime is how long GitHub's registration tokens are valid.
	tokenLifetime = time.Hour
	maxTokenSize  = 4 << 10
	sampleToken   = "SAMPLE-TOKEN-THAT-REGISTERS-NOTHING" //nolint:gosec // not a credential
)

// TokenSource provides registration tokens. It is safe for concurrent use.
type TokenSource interface {
	// Token returns a token and when it is assumed to expire. That time is a guess that
	// only agents get. Errors never contain a token.
	Token(ctx context.Context) (token string, expiresAt time.Time, err error)
	// String describes the source, without a token.
	String() string
}

// source keeps its token within a function, where printing cannot reach it.
type source struct {
	name string
	// read returns a token and when it was created, if that is known.
	read func() (token string, made time.Time, err error)
}

func (s source) String() string { return s.name }

func (s source) Token(ctx context.Context) (string, time.Time, error) {
	if err := ctx.Err(); err != nil {
		return "", time.Time{}, err
	}
	token, made, err := s.read()
	if err == nil {
		err = checkToken(token)
	}
	if err != nil {
		return "", time.Time{}, noToken(s.name, err)
	}
	return token, made.Add(tokenLifetime), nil
}

// noToken returns an error that says which source has no token and why. The name of the
// source includes that of its file.
func noToken(source string, why error) error {
	return &fleet.TokenError{Why: source + ": " + reason(why), Cause: why}
}

// reason returns the text of an error, without the name of a file.
func reason(why error) string {
	if file, ok := errors.AsType[*fs.PathError](why); ok {
		return file.Err.Error()
	}
	return why.Error()
}

// StaticToken always returns the same token. Its age is unknown: it is assumed to expire in
// an hour, the longest validity of GitHub's tokens.
func StaticToken(token string, clock func() time.Time) TokenSource {
	return source{
		name: "a fixed token",
		read: func() (string, time.Time, error) { return token, clock(), nil },
	}
}

// TokenFile reads the token from a file each time, so that the file can be replaced while
// the controller runs; white space around the token is removed. The token is assumed to
// expire an hour after the file was last written, even if that is in the past: it is
// returned anyway, since it may be valid for longer.
//
// When the file cannot be read, is not a regular file, or does not contain a well-formed
// token, the error is a *fleet.TokenError that names the file.
func TokenFile(path string) TokenSource {
	return source{
		name: fmt.Sprintf("token file %q", path),
		read: func() (string, time.Time, error) { return readToken(path) },
	}
}

// SampleToken returns a token that registers nothing, for trying out the controller.
func SampleToken(clock func() time.Time) TokenSource {
	return source{
		name: "a sample token, which registers nothing",
		read: func() (string, time.Time, error) { return sampleToken, clock(), nil },
	}
}

// readToken returns the content of a file and when it was last written.
func readToken(path string) (token string, written time.Time, err error) {
	// Opening a pipe would block until it has a writer.
	info, err := os.Stat(path)
	if err != nil {
		return "", time.Time{}, err
	}
	if !info.Mode().IsRegular() {
		return "", time.Time{}, errNotRegular
	}
	f, err := os.Open(path)
	if err != nil {
		return "", time.Time{}, err
	}
	defer func() { _ = f.Close() }()
	if info, err = f.Stat(); err != nil { // the file may have been replaced
		return "", time.Time{}, err
	}
	content, err := io.ReadAll(io.LimitReader(f, maxTokenSize+1))
	if err != nil {
		return "", time.Time{}, err
	}
	if len(content) > maxTokenSize {
		return "", time.Time{}, errTooLong
	}
	return strings.TrimSpace(string(content)), info.ModTime().UTC(), nil
}

// Why a token is invalid. None of these contains the token.
const (
	errNotRegular = tokenError("it is not a regular file")
	errEmpty      = tokenError("it is empty")
	errTooLong    = tokenError("it is longer than 4 KiB")
	errBadToken   = tokenError("a token must be printable ASCII without spaces")
)

type tokenError string

func (e tokenError) Error() string { return string(e) }

func checkToken(token string) error {
	if token == "" {
		return errEmpty
	}
	if len(token) > maxTokenSize {
		return errTooLong
	}
	for i := range len(token) {
		if token[i] <= ' ' || token[i] > '~' {
			return errBadToken
		}
	}
	return nil
}
