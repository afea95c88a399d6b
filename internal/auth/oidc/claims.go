package oidc

import (
	"encoding/json"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/mig-controller/mig-controller/internal/auth"
)

const (
	emailClaim   = "email"
	subjectClaim = "sub"
)

// claims are those of a token: JSON values by name.
type claims map[string]any

// texts returns the values of a claim as texts: its elements if it is a list. Objects are left
// out. An email address that the issuer has not verified counts as missing: anyone could claim
// to have it.
func (c claims) texts(name string) []string {
	if name == emailClaim && c.unverifiedEmail() {
		return nil
	}
	list, isList := c[name].([]any)
	if !isList {
		list = []any{c[name]}
	}
	texts := make([]string, 0, len(list))
	for _, value := range list {
		switch value := value.(type) {
		case string:
			texts = append(texts, value)
		case bool:
			texts = append(texts, strconv.FormatBool(value))
		case json.Number:
			texts = append(texts, value.String())
		}
	}
	return texts
}

// unverifiedEmail reports whether the issuer says that it has not verified the email address.
// Some issuers say so with a text.
func (c claims) unverifiedEmail() bool {
	verified, given := c["email_verified"]
	return given && verified != true && verified != "true"
}

// name returns the name of the principal, from the named claim or else from sub; empty if
// neither is usable.
func (c claims) name(claim string) string {
	if claim == "" {
		claim = emailClaim
	}
	for _, claim := range []string{claim, subjectClaim} {
		if texts := c.texts(claim); len(texts) == 1 && auth.IsName(texts[0]) {
			return texts[0]
		}
	}
	return ""
}

// names returns the names of the claims, as much of them as fits into an error.
func (c claims) names() string {
	const most, longest = 40, 64
	var names []string
	for i, name := range slices.Sorted(maps.Keys(c)) {
		if i == most {
			names = append(names, "…")
			break
		}
		if len(name) > longest || !auth.IsName(name) {
			name = "?"
		}
		names = append(names, name)
	}
	return strings.Join(names, ", ")
}

// match returns the first rule that the claims match.
func (c claims) match(rules []auth.ClaimRule) (auth.Grant, bool) {
	for _, rule := range rules {
		if c.matchAll(rule.Claims) {
			return rule.Grant, true
		}
	}
	return auth.Grant{}, false
}

// matchAll reports whether there is at least one pattern, and the claims match all of them.
func (c claims) matchAll(wanted map[string]auth.Patterns) bool {
	for name, patterns := range wanted {
		if _, found := patterns.Match(c.texts(name)...); !found {
			return false
		}
	}
	return len(wanted) > 0
}
