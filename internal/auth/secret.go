package auth

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"encoding/binary"
	"hash/crc32"
	"strings"
)

// SecretPrefix begins the secret of every operator's token, so that scanners recognise leaked
// ones.
const SecretPrefix = "migc_"

const (
	randomLength   = 26 // of rand.Text, at least 128 bits
	checksumLength = 7
)

var checksumEncoding = base32.StdEncoding.WithPadding(base32.NoPadding)

// newSecret returns a new secret: the prefix, 26 random characters and 7 of a CRC-32 over all
// before them, in the alphabet of Base32.
func newSecret() string {
	text := SecretPrefix + rand.Text()
	return text + checksum(text)
}

// IsSecret reports whether a text has the form of a secret, including the checksum. That says
// nothing about whether it was issued.
func IsSecret(s string) bool {
	if len(s) != len(SecretPrefix)+randomLength+checksumLength || !strings.HasPrefix(s, SecretPrefix) {
		return false
	}
	end := len(s) - checksumLength
	return checksum(s[:end]) == s[end:]
}

func checksum(text string) string {
	return checksumEncoding.EncodeToString(binary.BigEndian.AppendUint32(nil, crc32.ChecksumIEEE([]byte(text))))
}

// Hash is what is kept of a secret. It is not salted: the secrets are random and too long to
// be guessed.
type Hash [sha256.Size]byte

func hashOf(secret string) Hash { return sha256.Sum256([]byte(secret)) }
