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
	// tokenLifetime is how long GitHub's registration tokens live. Of a token
	// whose age is not known it is an upper bound.
	tokenLifetime = time.Hour
	maxTokenSize  = 4 << 10
	sampleToken   = "SAMPLE-TOKEN-THAT-REGISTERS-NOTHING" //nolint:gosec // it is no credential
)

// TokenSource is where registration tokens come from. Its methods may be called
// at the same time.
type TokenSource interface {
	// Token returns a token and when it stops working, at the latest. Its errors
	// never hold a token.
	Token(ctx context.Context) (token string, expiresAt time.Time, err error)
	// String says what the source is, without a token.
	String() string
}

// source keeps what it knows of tokens in a function, where printing does not
// reach.
type source struct {
	name  string
	read  func() (string, error)
	clock func() time.Time
}

func (s source) String() string { return s.name }

func (s source) Token(ctx context.Context) (string, time.Time, error) {
	if err := ctx.Err(); err != nil {
		return "", time.Time{}, err
	}
	token, err := s.read()
	if err != nil {
		return "", time.Time{}, noToken(s.name, err)
	}
	if err := checkToken(token); err != nil {
		return "", time.Time{}, noToken(s.name, err)
	}
	return token, s.clock().Add(tokenLifetime), nil
}

// noToken says which source has no token and why. The name of a file is in that of
// its source.
func noToken(source string, why error) error {
	text := why.Error()
	if file, ok := errors.AsType[*fs.PathError](why); ok {
		text = file.Err.Error()
	}
	return &fleet.TokenError{Why: source + ": " + text, Cause: why}
}

// StaticToken always gives the same token. Its age is not known: it is said
// to expire an hour from now, the most that GitHub gives a token.
func StaticToken(token string, clock func() time.Time) TokenSource {
	return source{
		name:  "a fixed token",
		read:  func() (string, error) { return token, nil },
		clock: clock,
	}
}

// TokenFile reads the token from a file each time, so that the file can be
// replaced while the controller runs; white space around the token is dropped.
// The token is said to expire an hour from now, as with StaticToken.
//
// When the file cannot be read, is not a regular file, or holds no well-formed
// token, the error is a *fleet.TokenError that names the file.
func TokenFile(path string, clock func() time.Time) TokenSource {
	return source{
		name:  fmt.Sprintf("token file %q", path),
		read:  func() (string, error) { return readToken(path) },
		clock: clock,
	}
}

// SampleToken gives a token that registers nothing, for trying the controller
// out.
func SampleToken(clock func() time.Time) TokenSource {
	return source{
		name:  "a sample token, which registers nothing",
		read:  func() (string, error) { return sampleToken, nil },
		clock: clock,
	}
}

func readToken(path string) (string, error) {
	// Opening a pipe would wait for someone to write to it.
	info, err := os.Stat(path)
	if err != nil {
		return "", err
	}
	if !info.Mode().IsRegular() {
		return "", errNotRegular
	}
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer func() { _ = f.Close() }()
	content, err := io.ReadAll(io.LimitReader(f, maxTokenSize+1))
	if err != nil {
		return "", err
	}
	if len(content) > maxTokenSize {
		return "", errTooLong
	}
	return strings.TrimSpace(string(content)), nil
}

// What can be wrong with a token. None of these says what the token is.
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
