package control

import (
	"crypto/sha256"
	"encoding/base64"
	"strconv"
	"strings"
)

// A token is an encoded position in something long, such as a list, with a checksum over
// the scope in which it is valid: the store, the list and its filters. The checksum detects
// mistakes; it is not secret and protects nothing.
const (
	sealLength     = 8
	maxTokenLength = 256
)

var tokenEncoding = base64.RawURLEncoding

// scopeOf joins the parts of a scope. No part may contain a NUL.
func scopeOf(parts ...string) string { return strings.Join(parts, "\x00") }

// seal returns the token for a position.
func seal(scope, place string) string {
	sum := sha256.Sum256([]byte(scope + "\x00" + place))
	return tokenEncoding.EncodeToString(append(sum[:sealLength:sealLength], place...))
}

// unseal returns the position of a token, and false for one that seal has not returned for
// this scope.
func unseal(scope, token string) (place string, ok bool) {
	if len(token) > maxTokenLength {
		return "", false
	}
	raw, err := tokenEncoding.DecodeString(token)
	if err != nil || len(raw) < sealLength {
		return "", false
	}
	place = string(raw[sealLength:])
	return place, seal(scope, place) == token
}

// sealSeq is seal for a Seq.
func sealSeq(scope string, seq int64) string { return seal(scope, strconv.FormatInt(seq, 10)) }

// unsealSeq is unseal for a Seq.
func unsealSeq(scope, token string) (seq int64, ok bool) {
	place, ok := unseal(scope, token)
	if !ok {
		return 0, false
	}
	seq, err := strconv.ParseInt(place, 10, 64)
	return seq, err == nil && seq >= 0
}
