package cli

import "strings"

// fromBash returns the words that were typed, without bash's quotes, and a function that
// quotes a word so that bash can replace the last one with it.
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

// special reports whether a character has a special meaning in bash.
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

// unquoted returns a word without its quotes, as bash reads it. The last quote may be
// open.
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

// joinColons joins what bash splits: bash makes colons words of their own, in addresses
// for instance. cut is the start of the last word that bash will not replace.
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
