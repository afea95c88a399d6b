package cli

import "strings"

// fromBash returns the words that were typed, without bash's quotes, and what writes a
// word so that bash can put it in the place of the last one.
func fromBash(typed []string) (words []string, written func(string) string) {
	joined, cut := joinColons(typed)
	words = make([]string, len(joined))
	for i, word := range joined {
		words[i] = unquoted(word)
	}
	last := typed[len(typed)-1]
	return words, func(word string) string {
		word = strings.TrimPrefix(word, unquoted(cut))
		switch {
		case strings.HasPrefix(last, `"`): // bash keeps the quote, and closes it
			return escaped(word, func(r rune) bool { return strings.ContainsRune("\"\\$`", r) })
		case strings.HasPrefix(last, "'"):
			return strings.ReplaceAll(word, "'", `'\''`)
		default:
			return escaped(word, special)
		}
	}
}

// special reports whether bash sees more in a character than itself.
func special(r rune) bool { return strings.ContainsRune(" !\"#$&'()*;<>?[\\]^`{|}~", r) }

// escaped puts a backslash before the special characters.
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

// unquoted returns what bash makes of a word with quotes, of which the last may be open.
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

// joinColons puts together what bash splits: it makes colons words of their own,
// in addresses for instance. cut is what the last word begins with that bash will
// not replace.
func joinColons(words []string) (joined []string, cut string) {
	open := false
	for _, word := range words {
		colon := word != "" && strings.Trim(word, ":") == ""
		last := len(joined) - 1
		if last >= 0 && word != "" && (colon || open) {
			if cut = joined[last]; colon {
				cut += word
			}
			joined[last] += word
		} else {
			joined, cut = append(joined, word), ""
		}
		open = colon
	}
	return joined, cut
}
