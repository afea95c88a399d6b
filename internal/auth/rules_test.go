package auth

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// In a pattern * stands for any text, and every other character for itself.
func TestPatterns(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		pattern Pattern
		text    string
		want    bool
	}{
		{"", "", true},
		{"", "a", false},
		{"a", "a", true},
		{"a", "A", false},
		{"a", "ab", false},
		{"b", "ab", false},
		{"*", "", true},
		{"*", "a/b\nc", true},
		{"a*", "a", true},
		{"a*", "ba", false},
		{"*a", "ba", true},
		{"*a", "ab", false},
		{"a*a", "a", false},
		{"a*a", "aa", true},
		{"a*b*c", "abc", true},
		{"a*b*c", "a-b-b-c", true},
		{"a*b*c", "acb", false},
		{"*ab*ab", "ab", false},
		{"*ab*ab*", "xabxabx", true},
		{"**", "a", true},
		{"*.ops.example.com", "ann.ops.example.com", true},
		{"*.ops.example.com", "ops.example.com", false},
		{"*.ops.example.com", "ops.example.com.evil", false},
		{"acme/[a-z]?", "acme/ab", false},
		{"acme/[a-z]?", "acme/[a-z]?", true},
		{"ü*", "über", true},
	} {
		require.Equal(t, test.want, test.pattern.Matches(test.text), "%q %q", test.pattern, test.text)
	}
}

// Even a pattern and a text that are made for it take no long time.
func TestPatternsAreQuick(t *testing.T) {
	t.Parallel()
	begin := time.Now()
	for range 100 {
		require.False(t, Pattern(strings.Repeat("*a", 100)+"*b").Matches(strings.Repeat("a", 8<<10)))
	}
	require.Less(t, time.Since(begin), 5*time.Second)
}

// A pattern matches a text that is made of its parts, and nothing that lacks its beginning or
// its end.
func FuzzPattern(f *testing.F) {
	f.Add("a", "b", "c", "text")
	f.Add("*", "", "**", "")
	f.Add("ab", "ab", "ab", "ab")
	f.Fuzz(func(t *testing.T, first, middle, last, between string) {
		pattern := Pattern(first + "*" + middle + "*" + last)
		plain := func(s string) string { return strings.ReplaceAll(s, "*", between) }
		text := plain(first) + between + plain(middle) + between + plain(last)
		require.True(t, pattern.Matches(text), "%q %q", pattern, text)
		if begin, _, _ := strings.Cut(first, "*"); !strings.HasPrefix(between, begin) {
			require.False(t, pattern.Matches(between))
		}
		require.Equal(t, first == between || strings.Contains(first, "*") && Pattern(first).Matches(between), Pattern(first).Matches(between))
	})
}

// A grant without pools is for all of them.
func TestGrants(t *testing.T) {
	t.Parallel()
	require.Equal(t, AllPools(), Grant{}.Scope())
	require.Equal(t, OnlyPools("a", "b"), Grant{Pools: []string{"b", "a"}}.Scope())
}

// Names that would break a line of the log, or a table, are not names.
func TestNames(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]bool{
		"ann": true, "Ann Übel": true, "repo:acme/deploy:ref:refs/heads/main": true, strings.Repeat("x", MaxName): true,
		"": false, "a\nb": false, "a\x00": false, "a\xff": false, "a\u202eb": false, strings.Repeat("x", MaxName+1): false,
	} {
		require.Equal(t, want, IsName(name), "%q", name)
	}
}
