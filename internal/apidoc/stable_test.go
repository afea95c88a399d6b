package apidoc

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// madeUp matches texts that differ from run to run.
var madeUp = []struct {
	text *regexp.Regexp
	name string
}{
	{regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z$`), "a time"},
	{regexp.MustCompile(`^1\d{9}$`), "a time in Unix seconds"},
	{regexp.MustCompile(`^((cmd|reg|req)-[a-z2-7]{26}|tok-[a-z2-7]{16})$`), "an id"},
}

// volatile are members whose values differ from run to run.
var volatile = map[string]bool{
	"cursor": true, "nextPageToken": true, "version": true, "agentVersion": true, "eventId": true, "runner_id": true,
	"sessionEpoch": true, "registration_token": true, "registrationToken": true,
	"cpuUsagePercent": true, "memoryUsagePercent": true, "diskUsagePercent": true,
	"memoryUsedBytes": true, "diskUsedBytes": true, "goroutines": true,
	"timestamp": true, // a number, in the output of the stream
}

// stable returns a response in which volatile values are replaced by their kind.
func stable(t *testing.T, text string) string {
	t.Helper()
	var out []any
	for dec := json.NewDecoder(strings.NewReader(text)); dec.More(); {
		var message any
		require.NoError(t, dec.Decode(&message))
		out = append(out, withoutVolatile("", message))
	}
	data, err := json.MarshalIndent(out, "", "  ")
	require.NoError(t, err)
	return string(data)
}

func withoutVolatile(name string, value any) any {
	switch v := value.(type) {
	case map[string]any:
		for name := range v {
			v[name] = withoutVolatile(name, v[name])
		}
		return v
	case []any:
		for i := range v {
			v[i] = withoutVolatile("", v[i])
		}
		return v
	case string:
		for _, m := range madeUp {
			if m.text.MatchString(v) {
				return "<" + m.name + ">"
			}
		}
	}
	if volatile[name] {
		return fmt.Sprintf("<%T>", value)
	}
	return value
}

// Responses that differ only in volatile values are equal, and others are not.
func TestStable(t *testing.T) {
	t.Parallel()
	const answer = `{"id": "cmd-3qcmkwt3flq3wapc23rc4vnye3", "createdAt": "1795463644", "at": "2026-11-23T19:54:04.019Z", "cpuUsagePercent": 3.5, "attempts": 1, "timestamp": 1795463644}`
	for _, same := range []string{
		`{"attempts":1, "id": "cmd-aaaaaaaaaaaaaaaaaaaaaaaaaa", "createdAt": "1895463644", "at": "2027-11-23T19:54:04Z", "cpuUsagePercent": 4, "timestamp": 1895463644}`,
	} {
		require.Equal(t, stable(t, answer), stable(t, same))
	}
	for old, changed := range map[string]string{
		`cmd-3qcmkwt3flq3wapc23rc4vnye3`: `level-1`,
		`"1795463644"`:                   `1795463644`,
		`19:54:04.019Z`:                  `19:54:04.019`,
		`3.5`:                            `"NaN"`,
		`"attempts": 1`:                  `"attempts": 2`,
		`"attempts"`:                     `"tries"`,
		`{"id"`:                          `{} {"id"`,
	} {
		require.NotEqual(t, stable(t, answer), stable(t, strings.Replace(answer, old, changed, 1)), changed)
	}
}
