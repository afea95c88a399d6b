package config

import (
	"fmt"

	"go.yaml.in/yaml/v3"

	"github.com/mig-controller/mig-controller/internal/auth"
	"github.com/mig-controller/mig-controller/internal/fleet"
)

// operatorsSection is the section of a configuration file that is about operators.
const operatorsSection = "operators"

// The limits of the section.
const (
	maxIssuers  = 16
	maxRules    = 100 // of an issuer, and for certificates
	maxClaims   = 20  // of a rule
	maxPatterns = 100 // of a claim or an attribute
	maxPools    = 100 // of a rule
	maxText     = 512 // bytes of a text
)

// Operators is how operators authenticate other than by tokens that the controller issues. It
// can only be set in a configuration file.
type Operators struct {
	// OIDC are the issuers of identity tokens. Their URLs are different.
	OIDC []auth.Issuer
	// Certificates are the rules for client certificates, in the order in which they are tried.
	Certificates []auth.CertificateRule
}

// readOperators reads the section. An empty one sets nothing.
func readOperators(path string, key, value *yaml.Node) (o Operators, err error) {
	s := section{file: path}.within(operatorsSection, key.Line, value)
	if s.value.ShortTag() == "!!null" {
		return Operators{}, nil
	}
	err = s.fields(
		field{"oidc", false, func(s section) error {
			o.OIDC, err = items(s, maxIssuers, readIssuer)
			if err != nil {
				return err
			}
			return differ(s, o.OIDC)
		}},
		field{"certificates", false, func(s section) error {
			o.Certificates, err = items(s, maxRules, readCertificateRule)
			return err
		}},
	)
	if err != nil {
		return Operators{}, err
	}
	return o, nil
}

// differ returns an error unless the issuers have different URLs: a token has only its issuer to
// find the rules by.
func differ(s section, issuers []auth.Issuer) error {
	first := map[string]int{}
	for i, issuer := range issuers {
		if earlier, twice := first[issuer.URL]; twice {
			item := s.value.Content[i]
			return s.within(fmt.Sprintf("[%d].issuer", i), item.Line, item).
				invalid("must differ from that of %s[%d]: an issuer has one list of rules", s.name, earlier)
		}
		first[issuer.URL] = i
	}
	return nil
}

func readIssuer(s section) (i auth.Issuer, err error) {
	err = s.fields(
		field{"issuer", true, func(s section) error {
			i.URL, err = s.text(auth.IsIssuerURL, issuerRule)
			return err
		}},
		field{"audience", true, func(s section) error {
			i.Audience, err = s.text(isShort, shortRule)
			return err
		}},
		field{"name-claim", false, func(s section) error {
			i.NameClaim, err = s.text(isShort, shortRule)
			return err
		}},
		field{"rules", true, func(s section) error {
			i.Rules, err = items(s, maxRules, readClaimRule)
			return err
		}},
	)
	return i, err
}

func readClaimRule(s section) (r auth.ClaimRule, err error) {
	err = s.fields(append(grantFields(&r.Grant), field{"claims", true, func(s section) error {
		r.Claims, err = readClaims(s)
		return err
	}})...)
	return r, err
}

// readClaims reads the claims of a rule. Without any, a rule would match every token of the
// issuer, which for some is anybody's.
func readClaims(s section) (map[string]auth.Patterns, error) {
	rule := fmt.Sprintf("must have 1 to %d claims, each with a text or a list of texts, such as {groups: [ops]}", maxClaims)
	claims := map[string]auth.Patterns{}
	names, err := s.pairs(rule, func(name string, value section) (err error) {
		if !isShort(name) {
			return value.invalid("%s", shortRule)
		}
		claims[name], err = readPatterns(value)
		return err
	})
	if err == nil && (len(names) == 0 || len(names) > maxClaims) {
		err = s.invalid("%s", rule)
	}
	return claims, err
}

func readCertificateRule(s section) (r auth.CertificateRule, err error) {
	attribute := func(name string, to *auth.Patterns) field {
		return field{name, false, func(s section) error {
			*to, err = readPatterns(s)
			return err
		}}
	}
	err = s.fields(append(grantFields(&r.Grant),
		attribute("cn", &r.CN), attribute("uri", &r.URI), attribute("dns", &r.DNS), attribute("email", &r.Email))...)
	if err == nil && r.CN == nil && r.URI == nil && r.DNS == nil && r.Email == nil {
		err = s.invalid("needs cn, uri, dns or email")
	}
	return r, err
}

// grantFields are the fields with what a rule grants.
func grantFields(g *auth.Grant) []field {
	return []field{
		{"role", true, func(s section) error {
			role, err := s.text(func(text string) bool { return auth.Role(text).Valid() }, "must be viewer, operator or admin")
			g.Role = auth.Role(role)
			return err
		}},
		{"pools", false, func(s section) (err error) {
			g.Pools, err = items(s, maxPools, func(s section) (string, error) {
				return s.text(isPool, "must be the id of a pool: letters, digits and . _ -, beginning with a letter or digit")
			})
			return err
		}},
	}
}

// readPatterns reads one pattern or a list of them.
func readPatterns(s section) (auth.Patterns, error) {
	one := func(s section) (auth.Pattern, error) {
		text, err := s.text(isShort, shortRule)
		return auth.Pattern(text), err
	}
	if s.value.Kind == yaml.SequenceNode {
		return items(s, maxPatterns, one)
	}
	pattern, err := one(s)
	return auth.Patterns{pattern}, err
}

const issuerRule = "must be the URL of an issuer, as its tokens have it in the claim iss: https, or http to a loopback address, " +
	"without user, query and fragment"

func isShort(text string) bool { return text != "" && len(text) <= maxText }

var shortRule = fmt.Sprintf("must be a text of 1 to %d bytes", maxText)

func isPool(text string) bool { return fleet.CheckID("", text) == nil }
