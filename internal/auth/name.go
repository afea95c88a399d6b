package auth

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// MaxName is the maximum length in bytes of the name of a principal that an issuer or a
// certificate gives.
const MaxName = 256

// IsName reports whether a name that an issuer or a certificate gives can be that of a
// principal: it is not empty, not longer than MaxName, and printable.
func IsName(name string) bool {
	return name != "" && len(name) <= MaxName && utf8.ValidString(name) &&
		!strings.ContainsFunc(name, func(r rune) bool { return !unicode.IsPrint(r) })
}
