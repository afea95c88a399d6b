package config

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/internal/auth"
	"github.com/mig-controller/mig-controller/internal/testkit"
)

// The section about operators has issuers and rules.
func TestOperators(t *testing.T) {
	t.Parallel()
	file := writeConfig(t, `http-addr: localhost:1
operators:
  oidc:
    - issuer: https://token.actions.githubusercontent.com
      audience: mig-controller
      rules:
        - claims: {repository: "acme/deploy", ref: "refs/heads/*"}
          role: operator
          pools: [linux, mac-1]
        - claims:
            repository_owner: acme
          role: viewer
    - issuer: http://localhost:5556/dex
      audience: &a migctl
      name-claim: preferred_username
      rules:
        - role: admin
          claims:
            groups: [ops, "sre-*"]
            aud: *a
  certificates:
    - cn: "*.ops.example.com"
      role: viewer
    - uri: ["spiffe://example.com/ops/*", "spiffe://example.com/sre/*"]
      dns: a.example.com
      email: "*@example.com"
      role: operator
      pools: [linux]
`)
	o, err := Parse([]string{"--config", file}, nil)
	require.NoError(t, err)
	require.Equal(t, Operators{
		OIDC: []auth.Issuer{
			{URL: "https://token.actions.githubusercontent.com", Audience: "mig-controller", Rules: []auth.ClaimRule{
				{
					Claims: map[string]auth.Patterns{"repository": {"acme/deploy"}, "ref": {"refs/heads/*"}},
					Grant:  auth.Grant{Role: auth.Operator, Pools: []string{"linux", "mac-1"}},
				},
				{Claims: map[string]auth.Patterns{"repository_owner": {"acme"}}, Grant: auth.Grant{Role: auth.Viewer}},
			}},
			{URL: "http://localhost:5556/dex", Audience: "migctl", NameClaim: "preferred_username", Rules: []auth.ClaimRule{
				{Claims: map[string]auth.Patterns{"groups": {"ops", "sre-*"}, "aud": {"migctl"}}, Grant: auth.Grant{Role: auth.Admin}},
			}},
		},
		Certificates: []auth.CertificateRule{
			{CN: auth.Patterns{"*.ops.example.com"}, Grant: auth.Grant{Role: auth.Viewer}},
			{
				URI: auth.Patterns{"spiffe://example.com/ops/*", "spiffe://example.com/sre/*"}, DNS: auth.Patterns{"a.example.com"},
				Email: auth.Patterns{"*@example.com"}, Grant: auth.Grant{Role: auth.Operator, Pools: []string{"linux"}},
			},
		},
	}, o.Operators)
	require.Equal(t, "localhost:1", o.HTTPAddr)

	for _, text := range []string{"operators:", "operators: {}"} {
		o, err := Parse([]string{"--config", writeConfig(t, text)}, nil)
		require.NoError(t, err, text)
		require.Zero(t, o.Operators)
	}
}

// An error in the section names the field, the rule and the line.
func TestWrongOperators(t *testing.T) {
	t.Parallel()
	const head = "operators:\n  oidc:\n    - issuer: https://a.example\n      audience: b\n      rules:\n"
	for text, want := range map[string]string{
		"operators: 5":                                                         "operators must have fields: oidc, certificates (from FILE, line 1)",
		"operators: [a]":                                                       "operators must have fields: oidc, certificates (from FILE, line 1)",
		"\noperator: {}":                                                       `there is no option "operator"; did you mean "operators"? (from FILE, line 2)`,
		"operators: {}\noperators: {}":                                         "operators must be set once (from FILE, line 2)",
		"operators:\n  OIDC: []":                                               `there is no field "OIDC" in operators; did you mean "oidc"? (from FILE, line 2)`,
		"operators:\n  certificate: []":                                        `there is no field "certificate" in operators; did you mean "certificates"? (from FILE, line 2)`,
		"operators:\n  saml: []":                                               `there is no field "saml" in operators, which can have oidc, certificates (from FILE, line 2)`,
		"operators:\n  oidc: []":                                               "operators.oidc must be a list of 1 to 16 items (from FILE, line 2)",
		"operators:\n  oidc: {issuer: a}":                                      "operators.oidc must be a list of 1 to 16 items (from FILE, line 2)",
		"operators:\n  oidc:":                                                  "operators.oidc must be a list of 1 to 16 items (from FILE, line 2)",
		"operators:\n  oidc: 5\n  oidc: [a]":                                   "operators.oidc must be a list of 1 to 16 items (from FILE, line 2)",
		"operators:\n  oidc: [a]":                                              "operators.oidc[0] must have fields: issuer, audience, name-claim, rules (from FILE, line 2)",
		"operators:\n  oidc:\n    - rules: 5":                                  "operators.oidc[0].rules must be a list of 1 to 100 items (from FILE, line 3)",
		"operators:\n  oidc: [{issuer: 'http://a.example'}]":                   "operators.oidc[0].issuer " + issuerRule + " (from FILE, line 2)",
		"operators:\n  oidc: [{audience: ''}]":                                 "operators.oidc[0].audience " + shortRule + " (from FILE, line 2)",
		"operators:\n  oidc: [{audience: 5}]":                                  "operators.oidc[0].audience must be a text: put it in quotes (from FILE, line 2)",
		"operators:\n  oidc: [{audience: [a]}]":                                "operators.oidc[0].audience must be a text: put it in quotes (from FILE, line 2)",
		"operators:\n  oidc: [{audience: a}]":                                  "operators.oidc[0] needs the field issuer (from FILE, line 2)",
		"operators:\n  oidc: [{issuer: 'https://a', audience: a}]":             "operators.oidc[0] needs the field rules (from FILE, line 2)",
		"operators:\n  oidc: [{audience: a,\n    audience: b}]":                "operators.oidc[0].audience must be set once (from FILE, line 3)",
		"operators:\n  oidc: [{name_claim: a}]":                                `there is no field "name_claim" in operators.oidc[0]; did you mean "name-claim"? (from FILE, line 2)`,
		"operators:\n  oidc: [{? [a] : b}]":                                    "operators.oidc[0] must have fields: issuer, audience, name-claim, rules (from FILE, line 2)",
		head + "        - role: root":                                          "operators.oidc[0].rules[0].role must be viewer, operator or admin (from FILE, line 6)",
		head + "        - role: admin":                                         "operators.oidc[0].rules[0] needs the field claims (from FILE, line 6)",
		head + "        - claims: {a: b}":                                      "operators.oidc[0].rules[0] needs the field role (from FILE, line 6)",
		head + "        - claims: {}":                                          "operators.oidc[0].rules[0].claims must have 1 to 20 claims, each with a text or a list of texts, such as {groups: [ops]} (from FILE, line 6)",
		head + "        - claims: [a]":                                         "operators.oidc[0].rules[0].claims must have 1 to 20 claims, each with a text or a list of texts, such as {groups: [ops]} (from FILE, line 6)",
		head + "        - claims:\n            a: 5":                           "operators.oidc[0].rules[0].claims.a must be a text: put it in quotes (from FILE, line 7)",
		head + "        - claims:\n            a: []":                          "operators.oidc[0].rules[0].claims.a must be a list of 1 to 100 items (from FILE, line 7)",
		head + "        - claims:\n            a: [b, true]":                   "operators.oidc[0].rules[0].claims.a[1] must be a text: put it in quotes (from FILE, line 7)",
		head + "        - claims:\n            a: b\n            a: c":         "operators.oidc[0].rules[0].claims.a must be set once (from FILE, line 8)",
		head + "        - claim: {}":                                           `there is no field "claim" in operators.oidc[0].rules[0]; did you mean "claims"? (from FILE, line 6)`,
		head + "        - pools: []":                                           "operators.oidc[0].rules[0].pools must be a list of 1 to 100 items (from FILE, line 6)",
		head + "        - pools: linux":                                        "operators.oidc[0].rules[0].pools must be a list of 1 to 100 items (from FILE, line 6)",
		head + "        - pools: [a, '*']":                                     "operators.oidc[0].rules[0].pools[1] must be the id of a pool: letters, digits and . _ -, beginning with a letter or digit (from FILE, line 6)",
		head + "        - role: admin\n          claims: {a: b}\n        - {}": "operators.oidc[0].rules[1] needs the field role (from FILE, line 8)",
		"operators:\n  certificates:\n    - role: admin":                       "operators.certificates[0] needs cn, uri, dns or email (from FILE, line 3)",
		"operators:\n  certificates:\n    - cn: a":                             "operators.certificates[0] needs the field role (from FILE, line 3)",
		"operators:\n  certificates:\n    - CN: a":                             `there is no field "CN" in operators.certificates[0]; did you mean "cn"? (from FILE, line 3)`,
		"operators:\n  certificates:\n    - ip: a":                             `there is no field "ip" in operators.certificates[0], which can have role, pools, cn, uri, dns, email (from FILE, line 3)`,
		head + "        - {role: admin, claims: {a: b}}\n    - issuer: https://a.example\n      audience: c\n      rules: [{role: admin, claims: {a: b}}]": "operators.oidc[1].issuer must differ from that of operators.oidc[0]: an issuer has one list of rules (from FILE, line 7)",
	} {
		file := writeConfig(t, text)
		_, err := Parse([]string{"--config", file}, nil)
		require.EqualError(t, err, strings.ReplaceAll(want, "FILE", file), text)
	}
}

// The section is bounded.
func TestOperatorsAreBounded(t *testing.T) {
	t.Parallel()
	rule := "{role: viewer, claims: {a: b}}"
	issuer := func(i int, rules string) string {
		return fmt.Sprintf("{issuer: 'https://%d.example', audience: a, rules: [%s]}", i, rules)
	}
	var issuers, claims, patterns []string
	for i := range maxIssuers {
		issuers = append(issuers, issuer(i, rule))
	}
	for i := range maxClaims {
		claims = append(claims, fmt.Sprintf("a%d: b", i))
	}
	for range maxPatterns {
		patterns = append(patterns, strings.Repeat("x", maxText))
	}
	rules := strings.Repeat(rule+",", maxRules)
	list := func(items []string) string { return strings.Join(items, ",") }
	for text, want := range map[string]string{
		list(issuers): "",
		list(append(issuers, issuer(maxIssuers, rule))): "1 to 16 items",
		issuer(1, rules):      "",
		issuer(1, rules+rule): "1 to 100 items",
		issuer(1, "{role: viewer, claims: {"+list(claims)+"}}"):                                   "",
		issuer(1, "{role: viewer, claims: {z: b,"+list(claims)+"}}"):                              "1 to 20 claims",
		issuer(1, "{role: viewer, claims: {a: ["+list(patterns)+"]}}"):                            "",
		issuer(1, "{role: viewer, claims: {a: [b,"+list(patterns)+"]}}"):                          "1 to 100 items",
		issuer(1, "{role: viewer, claims: {a: x"+patterns[0]+"}}"):                                "1 to 512 bytes",
		issuer(1, "{role: viewer, claims: {x"+patterns[0]+": a}}"):                                "1 to 512 bytes",
		issuer(1, "{role: viewer, claims: {a: b}, pools: ["+strings.Repeat("p,", maxPools)+"]}"):  "",
		issuer(1, "{role: viewer, claims: {a: b}, pools: ["+strings.Repeat("p,", maxPools)+"p]}"): "1 to 100 items",
		"{issuer: 'https://a/?b', audience: a, rules: [" + rule + "]}":                            "without user, query and fragment",
		"{issuer: 'https://a#b', audience: a, rules: [" + rule + "]}":                             "without user, query and fragment",
		"{issuer: 'https://u@a', audience: a, rules: [" + rule + "]}":                             "without user, query and fragment",
		"{issuer: 'https://', audience: a, rules: [" + rule + "]}":                                "without user, query and fragment",
		"{issuer: 'a.example', audience: a, rules: [" + rule + "]}":                               "https, or http to a loopback address",
		"{issuer: 'http://127.0.0.1:5556', audience: a, rules: [" + rule + "]}":                   "",
	} {
		_, err := Parse([]string{"--config", writeConfig(t, "operators: {oidc: ["+text+"]}")}, nil)
		if want == "" {
			require.NoError(t, err, "%.100s", text)
		} else {
			require.ErrorContains(t, err, want, "%.100s", text)
		}
	}
}

// Client certificates need CAs, rules and TLS.
func TestClientCAOptions(t *testing.T) {
	t.Parallel()
	rules := writeConfig(t, "operators: {certificates: [{cn: a, role: viewer}]}")
	for _, test := range []struct {
		args  []string
		given bool
		want  string
	}{
		{nil, false, ""},
		{[]string{"--operator-client-ca=a", "--tls-cert=b", "--config", rules}, true, ""},
		{[]string{"--config", rules}, false, "--operator-client-ca must be given with operators.certificates in the configuration file"},
		{[]string{"--operator-client-ca=a", "--config", rules}, false, "--operator-client-ca must be given with --tls-cert: without TLS there are no client certificates (from the command line)"},
		{[]string{"--operator-client-ca=a", "--tls-cert=b"}, false, "--operator-client-ca must be given with rules, which are operators.certificates in the configuration file (from the command line)"},
	} {
		o, err := Parse(test.args, nil)
		require.NoError(t, err)
		given, err := o.ClientCA()
		require.Equal(t, test.given, given)
		if test.want == "" {
			require.NoError(t, err)
			continue
		}
		require.EqualError(t, err, test.want)
	}
}

// The file of CAs has certificates of CAs and nothing else: above all not a private key, or the
// certificate of a VM.
func TestClientCAFile(t *testing.T) {
	t.Parallel()
	one, two := testkit.NewCA(t, "one", testkit.FarOff), testkit.NewCA(t, "two", testkit.FarOff)
	server := testkit.NewIdentity(t, testkit.FarOff)
	leaf := one.Leaf(t)
	path := filepath.Join(t.TempDir(), "ca.pem")
	read := func(content ...[]byte) (int, error) {
		var all []byte
		for _, c := range content {
			all = append(all, c...)
		}
		require.NoError(t, os.WriteFile(path, all, 0o600))
		found, err := Options{OperatorClientCA: path}.ClientCAs()
		return len(found), err
	}
	n, err := read(one.PEM, two.PEM)
	require.NoError(t, err)
	require.Equal(t, 2, n)
	many := make([][]byte, maxCAs+1)
	for i := range many {
		many[i] = one.PEM
	}
	for _, content := range [][][]byte{
		nil,
		{[]byte("text")},
		{one.PEM, server.Key},
		{one.PEM, leaf},
		{leaf},
		many,
		{[]byte("-----BEGIN CERTIFICATE-----\naGVsbG8=\n-----END CERTIFICATE-----\n")},
	} {
		_, err := read(content...)
		require.EqualError(t, err, "--operator-client-ca must have 1 to 100 certificates of CAs in PEM, and nothing else")
	}
	_, err = Options{OperatorClientCA: path + "-missing"}.ClientCAs()
	require.ErrorContains(t, err, "--operator-client-ca must name a file that can be read")
}

// Whatever is in the section, the errors about it are for people.
func FuzzOperators(f *testing.F) {
	f.Add("oidc: [{issuer: 'https://a', audience: b, rules: [{role: admin, claims: {a: [b]}}]}]")
	f.Add("certificates: [{cn: a, role: viewer, pools: [b]}]")
	f.Add("{? [a] : b, <<: *c}")
	file := filepath.Join(f.TempDir(), "config.yaml")
	f.Fuzz(func(t *testing.T, text string) {
		require.NoError(t, os.WriteFile(file, []byte("operators:\n  "+strings.ReplaceAll(text, "\n", "\n  ")), 0o600))
		o, err := Parse([]string{"--config", file}, nil)
		if err != nil {
			_, isOption := errors.AsType[*OptionError](err)
			require.True(t, isOption || strings.Contains(err.Error(), "(from "), "%v", err)
			return
		}
		for _, issuer := range o.Operators.OIDC {
			require.True(t, auth.IsIssuerURL(issuer.URL))
			require.NotEmpty(t, issuer.Audience)
			for _, rule := range issuer.Rules {
				require.True(t, rule.Role.Valid())
				require.NotEmpty(t, rule.Claims)
			}
		}
		for _, rule := range o.Operators.Certificates {
			require.True(t, rule.Role.Valid())
		}
	})
}
