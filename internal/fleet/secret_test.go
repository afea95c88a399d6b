package fleet

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// The names of secrets are recognised in every usual spelling.
func TestSecretName(t *testing.T) {
	t.Parallel()
	for _, name := range []string{
		"token", "Token", "registration_token", "GITHUB_TOKEN", "tokenFile", "authTokens", "x-token-2", "to_ken",
		"secret", "clientSecret", "client-secret", "SECRETS", "secret1",
		"password", "db_password", "dbPassword", "PassWord", "pass_word",
		"jitconfig", "jit_config", "encodedJitConfig", "encoded_jit_config",
		"api_key", "api-key", "api.key", "api key", "apiKey", "APIKey", "API_KEY", "_key", "apikey", "APIKEY", "apikeys",
		"sshKey", "ssh_keys", "private_key_2", "privateKey2", "accesskey", "my_apikey", "my_config_key", "config_key_token", "x_KEY",
	} {
		require.True(t, SecretName(name), name)
	}
	for _, name := range []string{
		"", "_", "12", "key", "keys", "Key", "KEY", "key_1", "monkey", "donkeys", "turnkey", "keyboard", "key_name", "apiKeyId", "KEYS",
		"config_key", "configKey", "config-key", "CONFIG_KEY", "config_value", "level", "runner_url", "labels", "jit", "pass", "job_id",
	} {
		require.False(t, SecretName(name), name)
	}
}

// Hidden replaces the secrets of every type, and what was given is not changed.
func TestParamsWithoutSecrets(t *testing.T) {
	t.Parallel()
	p := Params{
		Strings: map[string]string{"api_key": "k", "level": "debug"},
		Ints:    map[string]int64{"pin_token": 1234, "n": 5},
		Bools:   map[string]bool{"is_secret": true, "force": true},
		List:    []string{"token"},
	}
	require.Equal(t, Params{
		Strings: map[string]string{"api_key": Hidden, "pin_token": Hidden, "is_secret": Hidden, "level": "debug"},
		Ints:    map[string]int64{"n": 5}, Bools: map[string]bool{"force": true}, List: []string{"token"},
	}, p.WithoutSecrets())
	require.Len(t, p.Strings, 2)
	require.Equal(t, "k", p.Strings["api_key"])
	require.EqualValues(t, 1234, p.Ints["pin_token"])
	require.True(t, p.Bools["is_secret"])

	onlyInts := Params{Ints: map[string]int64{"pin_token": 1}}
	require.Equal(t, map[string]string{"pin_token": Hidden}, onlyInts.WithoutSecrets().Strings)
	require.Equal(t, Params{}, Params{}.WithoutSecrets())
	require.Nil(t, WithoutSecrets(nil))
	require.Equal(t, map[string]string{"a_token": Hidden, "b": "c"}, WithoutSecrets(map[string]string{"a_token": "x", "b": "c"}))
}

// The value of a setting is a secret if the name of the setting is one.
func TestConfigValue(t *testing.T) {
	t.Parallel()
	for setting, hidden := range map[string]bool{"log.level": false, "github.token": true, "apiKey": true, "key": false, "": false} {
		for _, names := range [][2]string{{"config_key", "config_value"}, {"configKey", "configValue"}} {
			p := Params{Strings: map[string]string{names[0]: setting, names[1]: "v"}}.WithoutSecrets()
			require.Equal(t, setting, p.Strings[names[0]])
			require.Equal(t, hidden, p.Strings[names[1]] == Hidden, setting)
		}
	}
	p := Params{Strings: map[string]string{"config_key": "pin_secret"}, Ints: map[string]int64{"config_value": 1}}.WithoutSecrets()
	require.Equal(t, Hidden, p.Strings["config_value"])
	require.Empty(t, p.Ints)
}

// withSecrets returns a delivered command with secrets.
func withSecrets(tb testing.TB) Command {
	tb.Helper()
	c := inState(tb, Delivered)
	c.Params = Params{Strings: map[string]string{"a_token": "abc", "level": "debug"}, Ints: map[string]int64{"b_key": 7}}
	return c
}

// Each end of a command drops its secrets, and nothing before does. The record still shows
// which there were.
func TestEndsDropSecrets(t *testing.T) {
	t.Parallel()
	ends := map[CommandState]func(Command) (Command, error){
		Succeeded: func(c Command) (Command, error) { return c.MarkAcked(Ack{CommandID: "c", Success: true}, t0) },
		Failed:    func(c Command) (Command, error) { return c.MarkAcked(Ack{CommandID: "c"}, t0) },
		TimedOut:  func(c Command) (Command, error) { return c.Expire(t0.Add(time.Hour), t0, VM{}), nil },
		Expired: func(c Command) (Command, error) {
			return c.ReleaseLease(1).Expire(t0.Add(time.Hour), t0, VM{}), nil
		},
		Cancelled: func(c Command) (Command, error) { return c.Cancel(t0) },
	}
	for state, end := range ends {
		c := withSecrets(t)
		ended, err := end(c)
		require.NoError(t, err)
		require.Equal(t, state, ended.State)
		doc, err := json.Marshal(ended)
		require.NoError(t, err)
		require.NotContains(t, string(doc), "abc", state)
		require.NotContains(t, string(doc), `"b_key":7`, state)
		require.Equal(t, map[string]string{"a_token": Hidden, "b_key": Hidden, "level": "debug"}, ended.Params.Strings)
		require.Empty(t, ended.Params.Ints)
		require.Equal(t, "abc", c.Params.Strings["a_token"], "the command before is unchanged")
		require.Empty(t, ended.Outline().SecretSum)
	}
	require.Empty(t, withSecrets(t).SecretSum)
	require.Empty(t, inState(t, Cancelled).SecretSum, "it has no secrets")
}

// A repeated request is recognised after the secrets were dropped, and one with another
// secret is not.
func TestSameRequestWithoutSecrets(t *testing.T) {
	t.Parallel()
	open := withSecrets(t)
	ended, err := open.Cancel(t0)
	require.NoError(t, err)
	for _, known := range []Command{open, ended} {
		require.True(t, known.SameRequest(withSecrets(t)))
		for name, change := range map[string]func(p *Params){
			"another secret":     func(p *Params) { p.Strings["a_token"] = "abd" },
			"no secret":          func(p *Params) { delete(p.Strings, "a_token") },
			"one more":           func(p *Params) { p.Strings["c_token"] = "" },
			"another number":     func(p *Params) { p.Ints["b_key"] = 8 },
			"of another type":    func(p *Params) { p.Ints, p.Strings["b_key"] = nil, "7" },
			"what is shown":      func(p *Params) { *p = ended.Params },
			"another non-secret": func(p *Params) { p.Strings["level"] = "info" },
		} {
			other := withSecrets(t)
			change(&other.Params)
			require.False(t, known.SameRequest(other), name)
		}
	}
	stored := ended // by an earlier version
	stored.Params, stored.SecretSum = open.Params, ""
	require.True(t, stored.SameRequest(withSecrets(t)))
}

// The sum reveals 16 bits of the secrets and no more.
func TestSecretSumIsShort(t *testing.T) {
	t.Parallel()
	require.Len(t, withSecrets(t).Params.secretSum(), 4)
}

// Members of reports with secret names are hidden, and the rest is kept byte for byte.
func TestWithoutSecretMembers(t *testing.T) {
	t.Parallel()
	for before, after := range map[string]string{
		``:                                      ``,
		`{}`:                                    `{}`,
		`{"a": 9007199254740993 , "b":1e400}`:   `{"a": 9007199254740993 , "b":1e400}`,
		`{"token":"x"}`:                         `{"token":"(hidden)"}`,
		`{"a":1,"token" : "x\"}," ,"b":2}`:      `{"a":1,"token" : "(hidden)" ,"b":2}`,
		`{"token":1.5e3}`:                       `{"token":"(hidden)"}`,
		`{"token":null,"b":true}`:               `{"token":"(hidden)","b":true}`,
		`{"token":{"a":["}",{"b":"]"}]},"c":3}`: `{"token":"(hidden)","c":3}`,
		`{"tokens":[],"x":[{"api_key":"k"},"token"]}`: `{"tokens":"(hidden)","x":[{"api_key":"(hidden)"},"token"]}`,
		`{"t\u006fken":"x"}`:                          `{"t\u006fken":"(hidden)"}`,
		`{"token":"a","token":"b"}`:                   `{"token":"(hidden)","token":"(hidden)"}`,
		`{"config_key":"token","note":"token"}`:       `{"config_key":"token","note":"token"}`,
		`"token"`:                                     `"token"`,
	} {
		require.Equal(t, after, string(WithoutSecretMembers(json.RawMessage(before))), before)
	}
}

// JSON stays JSON, has no secrets afterwards, and is not changed if it has none.
func FuzzWithoutSecretMembers(f *testing.F) {
	for _, seed := range []string{`{"token":{"a":[1]},"b":"\\"}`, `{"token" :`, `"token":]`, `{"a":{"api_key":1}}`, `"\`} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, before string) {
		after := WithoutSecretMembers(json.RawMessage(before))
		var had, has any
		if json.Unmarshal([]byte(before), &had) != nil {
			return
		}
		require.NoError(t, json.Unmarshal(after, &has))
		require.Equal(t, hidden(had), has)
		if !strings.Contains(string(after), Hidden) {
			require.Equal(t, before, string(after))
		}
	})
}

// hidden is WithoutSecretMembers for a decoded value.
func hidden(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for name, member := range v {
			if v[name] = hidden(member); SecretName(name) {
				v[name] = Hidden
			}
		}
	case []any:
		for i := range v {
			v[i] = hidden(v[i])
		}
	}
	return v
}
