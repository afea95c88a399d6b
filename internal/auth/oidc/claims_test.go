package oidc

import (
	"fmt"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/internal/auth"
)

// decoded returns the claims of a JSON object.
func decoded(t *testing.T, content string) claims {
	t.Helper()
	c, err := decode([]byte(content))
	require.NoError(t, err)
	return c
}

// A rule matches if all of its claims match, and a claim if one of its values matches one of the
// patterns.
func TestRulesMatch(t *testing.T) {
	t.Parallel()
	c := decoded(t, `{"repository":"acme/deploy","ref":"refs/heads/main","groups":["dev","ops",7,null,{"a":"admins"},["nested"]],
		"empty":"","none":[],"nothing":null,"object":{"ops":true},"number":12,"large":12345678901234567890,"flag":true,
		"email":"ann@example.com","email_verified":false}`)
	for _, test := range []struct {
		claims map[string]auth.Patterns
		want   bool
	}{
		{map[string]auth.Patterns{"repository": {"acme/deploy"}}, true},
		{map[string]auth.Patterns{"repository": {"acme/*"}, "ref": {"refs/heads/main"}}, true},
		{map[string]auth.Patterns{"repository": {"acme/*"}, "ref": {"refs/tags/*"}}, false},
		{map[string]auth.Patterns{"repository": {"acme"}}, false},
		{map[string]auth.Patterns{"repository": {"ACME/deploy"}}, false},
		{map[string]auth.Patterns{"repository": {"other", "*/deploy"}}, true},
		{map[string]auth.Patterns{"groups": {"ops"}}, true},
		{map[string]auth.Patterns{"groups": {"op"}}, false},
		{map[string]auth.Patterns{"groups": {"7"}}, true},
		{map[string]auth.Patterns{"groups": {"admins"}}, false},
		{map[string]auth.Patterns{"groups": {"nested"}}, false},
		{map[string]auth.Patterns{"groups": {"dev,ops"}}, false},
		{map[string]auth.Patterns{"groups": {}}, false},
		{map[string]auth.Patterns{"missing": {"*"}}, false},
		{map[string]auth.Patterns{"nothing": {"*"}}, false},
		{map[string]auth.Patterns{"none": {"*"}}, false},
		{map[string]auth.Patterns{"empty": {"*"}}, true},
		{map[string]auth.Patterns{"object": {"*"}}, false},
		{map[string]auth.Patterns{"number": {"12"}}, true},
		{map[string]auth.Patterns{"large": {"12345678901234567890"}}, true},
		{map[string]auth.Patterns{"flag": {"true"}}, true},
		{map[string]auth.Patterns{"email": {"*"}}, false},
		{map[string]auth.Patterns{}, false},
		{nil, false},
	} {
		_, found := c.match([]auth.ClaimRule{{Claims: test.claims}})
		require.Equal(t, test.want, found, "%v", test.claims)
	}
}

// The first of many rules that matches decides.
func TestManyRules(t *testing.T) {
	t.Parallel()
	var rules []auth.ClaimRule
	for i := range 100 {
		rules = append(rules, auth.ClaimRule{
			Claims: map[string]auth.Patterns{"groups": {auth.Pattern(fmt.Sprint("group-", i))}}, Grant: auth.Grant{Pools: []string{strconv.Itoa(i)}},
		})
	}
	grant, found := decoded(t, `{"groups":["group-98","group-41","group-99"]}`).match(rules)
	require.True(t, found)
	require.Equal(t, []string{"41"}, grant.Pools)
	_, found = decoded(t, `{"groups":["group-100"]}`).match(rules)
	require.False(t, found)
}
