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
	// tokenLifetime is how long GitHub's registration tokens live.
	tokenLifetime = time.Hour
	maxTokenSize  = 4 << 10
	sampleToken   = "SAMPLE-TOKEN-THAT-REGISTERS-NOTHING" //nolint:gosec // it is no credential
)

// TokenSource is where registration tokens come from. Its methods may be called
// at the same time.
type TokenSource interface {
	// Token returns a token and when it is taken to stop working. That time is a
	// guess, which only agents get. Its errors never hold
	// a token.
	Token(ctx context.Context) (token string, expiresAt time.Time, err error)
	// String says what the source is, without a token.
	String() string
}

// source keeps what it knows of tokens in a function, where printing does not
// reach.
type source struct {
	name string
	// read returns a token and when it was made, as far as that is known.
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

// noToken says which source has no token and why. The name of a file is in that of
// its source.
func noToken(source string, why error) error {
	return &fleet.TokenError{Why: source + ": " + reason(why), Cause: why}
}

// reason is the text of an error, without the name of a file.
func reason(why error) string {
	if file, ok := errors.AsType[*fs.PathError](why); ok {
		return file.Err.Error()
	}
	return why.Error()
}

// StaticToken always gives the same token. Its age is not known: it is said
// to expire an hour from now, the most that GitHub gives a token.
func StaticToken(token string, clock func() time.Time) TokenSource {
	return source{
		name: "a fixed token",
		read: func() (string, time.Time, error) { return token, clock(), nil },
	}
}

// TokenFile reads the token from a file each time, so that the file can be
// replaced while the controller runs; white space around the token is dropped.
// The token is said to expire an hour after the file was last written, also when that
// is in the past: it is given all the same, since it may be one that lives longer.
//
// When the file cannot be read, is not a regular file, or holds no well-formed
// token, the error is a *fleet.TokenError that names the file.
func TokenFile(path string) TokenSource {
	return source{
		name: fmt.Sprintf("token file %q", path),
		read: func() (string, time.Time, error) { return readToken(path) },
	}
}

// SampleToken gives a token that registers nothing, for trying the controller
// out.
func SampleToken(clock func() time.Time) TokenSource {
	return source{
		name: "a sample token, which registers nothing",
		read: func() (string, time.Time, error) { return sampleToken, clock(), nil },
	}
}

// readToken returns the content of a file and when it was last written.
func readToken(path string) (token string, written time.Time, err error) {
	// Opening a pipe would wait for someone to write to it.
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
	if info, err = f.Stat(); err != nil { // it may be another file by now
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
