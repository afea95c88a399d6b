package cli

import "strings"

// fromBash returns the typed words without their quotes, and a function that quotes a
// completion in the style of the last word.
func fromBash(typed []string) (words []string, quote func(string) string) {
	joined, prefix := joinColons(typed)
	words = make([]string, len(joined))
	for i, word := range joined {
		words[i] = unquoted(word)
	}
	last := typed[len(typed)-1]
	return words, func(word string) string {
		word = strings.TrimPrefix(word, unquoted(prefix))
		switch {
		case strings.HasPrefix(last, `"`): // bash keeps the opening quote and adds the closing one
			return escaped(word, func(r rune) bool { return strings.ContainsRune("\"\\$`", r) })
		case strings.HasPrefix(last, "'"):
			return strings.ReplaceAll(word, "'", `'\''`)
		default:
			return escaped(word, special)
		}
	}
}

// special reports whether a character has a special meaning in bash.
func special(r rune) bool { return strings.ContainsRune(" !\"#$&'()*;<>?[\\]^`{|}~", r) }

// escaped puts a backslash before each special character.
func escaped(word string, special func(rune) bool) string {
	var out strings.Builder
	for _, r := range word {
		if special(r) {
			out.WriteByte('\\')
		}
		out.WriteRune(r)
	}
	return out.String()
}

// unquoted removes quotes and backslashes as bash does. The last quote may be unclosed.
func unquoted(word string) string {
	var out strings.Builder
	var quote rune
	backslash := false
	for _, r := range word {
		switch {
		case backslash:
			if quote == '"' && !strings.ContainsRune("\"\\$`", r) {
				out.WriteByte('\\')
			}
			out.WriteRune(r)
			backslash = false
		case r == '\\' && quote != '\'':
			backslash = true
		case quote == 0 && (r == '"' || r == '\''):
			quote = r
		case r == quote:
			quote = 0
		default:
			out.WriteRune(r)
		}
	}
	return out.String()
}

// joinColons rejoins words that bash split at colons, such as addresses. prefix is the part
// of the last word that bash does not replace.
func joinColons(words []string) (joined []string, prefix string) {
	afterColon := false
	for _, word := range words {
		colon := word != "" && strings.Trim(word, ":") == ""
		last := len(joined) - 1
		if last >= 0 && word != "" && (colon || afterColon) {
			if prefix = joined[last]; colon {
				prefix += word
			}
			joined[last] += word
		} else {
			joined, prefix = append(joined, word), ""
		}
		afterColon = colon
	}
	return joined, prefix
}
