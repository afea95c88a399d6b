package audit

import (
	"strings"
	"unicode/utf8"
)

// Outcomes are all outcomes: OK, and the names of the codes.
var Outcomes = []string{
	OK, "canceled", "unknown", "invalid_argument", "deadline_exceeded", "not_found", "already_exists", "permission_denied",
	"resource_exhausted", "failed_precondition", "aborted", "out_of_range", "unimplemented", "internal", "unavailable",
	"data_loss", "unauthenticated",
}

// MaxText is the maximum length of the texts of an event, in characters.
const MaxText = 1000

// Shorten returns the first MaxText characters of a text.
func Shorten(text string) string {
	if utf8.RuneCountInString(text) <= MaxText {
		return strings.ToValidUTF8(text, "\uFFFD")
	}
	return string([]rune(text)[:MaxText])
}
