package fleet

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"maps"
	"strings"
	"unicode"
)

// Hidden replaces the value of a secret wherever it is stored or shown.
const Hidden = "(hidden)"

// secretParts are the parts of a name that make it secret.
var secretParts = []string{"token", "secret", "password", "jitconfig"}

// SecretName reports whether a field with this name holds a secret: a parameter of a
// command, or a member of what an agent reports. Case, separators and numbers at the end are
// ignored. A name is secret if it contains token, secret, password or jitconfig, or if it has
// several words of which the last is key or keys; words are separated by characters other
// than letters and digits, or by a capital letter. apikey, accesskey and privatekey count as
// two words.
//
// config_key is not secret: it names the setting that update_config changes.
func SecretName(name string) bool {
	plain, last := fold(name)
	if plain == configKey {
		return false
	}
	for _, part := range secretParts {
		if strings.Contains(plain, part) {
			return true
		}
	}
	switch word := plain[last:]; word {
	case "key", "keys":
		return last > 0 || strings.HasPrefix(name, "_")
	default:
		word = strings.TrimSuffix(word, "s")
		return word == "apikey" || word == "accesskey" || word == "privatekey"
	}
}

// The folded names of the parameters of update_config. What the value holds depends on the
// name of the setting.
const (
	configKey   = "configkey"
	configValue = "configvalue"
)

// fold returns the letters and digits of a name in lower case, without digits at the end,
// and where the last word begins in them.
func fold(name string) (plain string, last int) {
	var b strings.Builder
	b.Grow(len(name))
	apart, upper := false, true // after a separator; after an upper-case letter
	runes := []rune(strings.TrimRightFunc(name, func(r rune) bool { return !unicode.IsLetter(r) }))
	for i, r := range runes {
		if !unicode.IsLetter(r) && !unicode.IsDigit(r) {
			apart = true
			continue
		}
		capital := unicode.IsUpper(r)
		ends := i+1 < len(runes) && unicode.IsLower(runes[i+1]) // a word in capitals ends before it
		if apart || capital && (!upper || ends) {
			last = b.Len()
		}
		apart, upper = false, capital
		b.WriteRune(unicode.ToLower(r))
	}
	return b.String(), last
}

// WithoutSecrets returns texts with Hidden in place of the secrets: texts itself, or a copy.
func WithoutSecrets(texts map[string]string) map[string]string {
	return Params{Strings: texts}.WithoutSecrets().Strings
}

// WithoutSecrets returns the parameters with Hidden in place of the secrets, as a text
// whatever the type of the parameter was. p is not changed.
func (p Params) WithoutSecrets() Params {
	shown, _ := p.split()
	return shown
}

// split returns the parameters with Hidden in place of the secrets, and the secrets alone;
// p itself and no parameters if there are none. An entry of List has no name, so it is never
// secret.
func (p Params) split() (shown, secrets Params) {
	secret := p.secretNames()
	var of Params
	p.Strings, of.Strings = part(p.Strings, secret)
	p.Ints, of.Ints = part(p.Ints, secret)
	p.Bools, of.Bools = part(p.Bools, secret)
	if len(of.Strings)+len(of.Ints)+len(of.Bools) == 0 {
		return p, of
	}
	p.Strings = maps.Clone(p.Strings)
	if p.Strings == nil {
		p.Strings = map[string]string{}
	}
	hide(p.Strings, of.Strings)
	hide(p.Strings, of.Ints)
	hide(p.Strings, of.Bools)
	return p, of
}

func hide[V any](in map[string]string, secrets map[string]V) {
	for name := range secrets {
		in[name] = Hidden
	}
}

// part divides parameters of one type; a nil secrets means that there are none, and then
// others is params itself.
func part[V any](params map[string]V, secret func(string) bool) (others, secrets map[string]V) {
	for name, value := range params {
		if !secret(name) {
			continue
		}
		if secrets == nil {
			others, secrets = maps.Clone(params), map[string]V{}
		}
		secrets[name] = value
		delete(others, name)
	}
	if secrets == nil {
		return params, nil
	}
	return others, secrets
}

// secretNames returns SecretName, which also accepts config_value if config_key names a
// secret.
func (p Params) secretNames() func(string) bool {
	for name, setting := range p.Strings {
		if plain, _ := fold(name); plain == configKey && SecretName(setting) {
			return func(name string) bool {
				plain, _ := fold(name)
				return plain == configValue || SecretName(name)
			}
		}
	}
	return SecretName
}

// secretSumBytes is the length of a secretSum. It is short on purpose: it reveals 16 bits of
// what the secrets are, which is too little to find one by trying a dictionary.
const secretSumBytes = 2

// secretSum returns a text that is the same for the same parameters, and almost always
// another one for others.
func (p Params) secretSum() string {
	text, _ := json.Marshal(p) //nolint:errchkjson // texts, integers and booleans cannot fail
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:secretSumBytes])
}

// withoutSecrets returns a command that has ended, with its secrets replaced.
func (c Command) withoutSecrets() Command {
	shown, secrets := c.Params.split()
	if secrets.Size() > 0 {
		c.Params, c.SecretSum = shown, secrets.secretSum()
	}
	return c
}

// sameParams reports whether p are the parameters that c was accepted with.
func (c Command) sameParams(p Params) bool {
	if c.SecretSum == "" {
		return c.Params.Equal(p)
	}
	shown, secrets := p.split()
	return c.Params.Equal(shown) && c.SecretSum == secrets.secretSum()
}

// WithoutSecretMembers returns a JSON text with Hidden in place of the values of members with
// secret names, at any depth. Everything else is left as it is, byte for byte.
func WithoutSecretMembers(text json.RawMessage) json.RawMessage {
	var out []byte
	copied := 0
	for i := 0; i < len(text); {
		if text[i] != '"' {
			i++
			continue
		}
		end := stringEnd(text, i)
		value := skipSpace(text, end)
		if value == len(text) || text[value] != ':' || !secretMember(text[i:end]) {
			i = end
			continue
		}
		value = skipSpace(text, value+1)
		out = append(append(out, text[copied:value]...), `"`+Hidden+`"`...)
		copied = valueEnd(text, value)
		i = copied
	}
	if out == nil {
		return text
	}
	return append(out, text[copied:]...)
}

// secretMember is SecretName for a name in quotes.
func secretMember(quoted []byte) bool {
	var name string
	if json.Unmarshal(quoted, &name) != nil {
		return false
	}
	return SecretName(name)
}

// stringEnd returns where the JSON string that begins at i ends.
func stringEnd(text []byte, i int) int {
	for i++; i < len(text); i++ {
		switch text[i] {
		case '\\':
			i++
		case '"':
			return i + 1
		}
	}
	return len(text)
}

// valueEnd returns where the JSON value that begins at i ends.
func valueEnd(text []byte, i int) int {
	for depth := 0; i < len(text); i++ {
		switch text[i] {
		case '"':
			if i = stringEnd(text, i) - 1; depth == 0 {
				return i + 1
			}
		case '{', '[':
			depth++
		case '}', ']':
			depth--
			if depth < 0 { // the end of what contains it
				return i
			}
			if depth == 0 {
				return i + 1
			}
		case ',', ' ', '\t', '\r', '\n':
			if depth == 0 {
				return i
			}
		}
	}
	return len(text)
}

func skipSpace(text []byte, i int) int {
	for i < len(text) && strings.IndexByte(" \t\r\n", text[i]) >= 0 {
		i++
	}
	return i
}
