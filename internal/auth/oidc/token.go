package oidc

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
)

const (
	// MaxToken is the maximum size of a token in bytes.
	MaxToken = 8 << 10
	// Skew is how far the clock of an issuer may be off.
	Skew = time.Minute
)

// algorithms are those that are accepted. All are asymmetric: with a symmetric one, whoever
// can verify a token could issue it.
var algorithms = []string{
	oidc.RS256, oidc.RS384, oidc.RS512, oidc.ES256, oidc.ES384, oidc.ES512, oidc.PS256, oidc.PS384, oidc.PS512, oidc.EdDSA,
}

// parse returns the claims of a token without verifying them.
func parse(token string) (claims, error) {
	parts := strings.Split(token, ".")
	if len(parts) != 3 || slices.Contains(parts, "") {
		return nil, fmt.Errorf("%w: it must have three parts with dots between them", ErrMalformed)
	}
	head, err := decodePart(parts[0])
	if err != nil {
		return nil, fmt.Errorf("%w: its header must be a JSON object", ErrMalformed)
	}
	if algorithm, _ := head["alg"].(string); !slices.Contains(algorithms, algorithm) {
		return nil, fmt.Errorf("%w, such as RS256 or ES256", ErrAlgorithm)
	}
	c, err := decodePart(parts[1])
	if err != nil {
		return nil, fmt.Errorf("%w: its claims must be a JSON object", ErrMalformed)
	}
	return c, nil
}

// decodePart decodes a JSON object in Base64.
func decodePart(part string) (claims, error) {
	content, err := base64.RawURLEncoding.DecodeString(part)
	if err != nil {
		return nil, err
	}
	return decode(content)
}

var errNotObject = errors.New("not one JSON object")

// decode decodes a JSON object. Its numbers stay as they are written.
func decode(content []byte) (claims, error) {
	d := json.NewDecoder(bytes.NewReader(content))
	d.UseNumber()
	var c claims
	if err := d.Decode(&c); err != nil {
		return nil, err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) || c == nil {
		return nil, errNotObject
	}
	return c, nil
}

// check checks what the signature does not protect from: the audience and the time.
func (c claims) check(audience string, now time.Time) error {
	if !slices.Contains(c.texts("aud"), audience) {
		return fmt.Errorf("%w: its claim aud must be or contain %q", ErrAudience, audience)
	}
	for _, name := range []string{"nbf", "iat"} {
		at, given, err := c.time(name)
		if err != nil {
			return err
		}
		if given && at.After(now.Add(Skew)) {
			return fmt.Errorf("%w (its %s is %s)", ErrNotYetValid, name, at.Format(time.RFC3339))
		}
	}
	ends, err := c.ends()
	if err == nil && !now.Before(ends) {
		err = fmt.Errorf("%w (its exp is %s)", ErrExpired, ends.Add(-Skew).Format(time.RFC3339))
	}
	return err
}

// ends returns the time from which on a token is rejected.
func (c claims) ends() (time.Time, error) {
	at, given, err := c.time("exp")
	if err == nil && !given {
		err = fmt.Errorf("%w: its claim exp is missing", ErrMalformed)
	}
	return at.Add(Skew), err
}

// maxSeconds is the last second of the year 9999.
const maxSeconds = 253402300799

// time returns the time of a claim, and whether there is one.
func (c claims) time(name string) (at time.Time, given bool, err error) {
	value, given := c[name]
	if !given || value == nil {
		return time.Time{}, false, nil
	}
	number, _ := value.(json.Number) // anything else is not a number
	seconds, err := number.Float64()
	if err != nil || seconds < 0 || seconds > maxSeconds {
		return time.Time{}, true, fmt.Errorf("%w: its claim %s must be a time in Unix seconds", ErrMalformed, name)
	}
	return time.UnixMilli(int64(seconds * 1000)).UTC(), true, nil
}
