package cli

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// escapeJSON escapes each character that could control a terminal or mislead a reader:
// control characters, bidirectional overrides and other invisible characters.
func escapeJSON(document []byte) []byte {
	return escape(document, func(r rune) string {
		if high, low := utf16.EncodeRune(r); high != unicode.ReplacementChar {
			return fmt.Sprintf(`\u%04x\u%04x`, high, low)
		}
		return fmt.Sprintf(`\u%04x`, r)
	})
}

// escape replaces non-printable characters except newlines, which never occur inside the
// strings of a document.
func escape(document []byte, escaped func(rune) string) []byte {
	out := make([]byte, 0, len(document))
	for len(document) > 0 {
		r, size := utf8.DecodeRune(document)
		if r == '\n' || unicode.IsPrint(r) {
			out = append(out, document[:size]...)
		} else {
			out = append(out, escaped(r)...)
		}
		document = document[size:]
	}
	return out
}

// jsonToYAML keeps the order of fields, and quotes strings that a YAML 1.1 or 1.2 parser
// would read as another type. It escapes the same characters as escapeJSON.
func jsonToYAML(document []byte) ([]byte, error) {
	decoder := json.NewDecoder(bytes.NewReader(document))
	decoder.UseNumber()
	node, err := readNode(decoder)
	if err != nil {
		return nil, err
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("more than one value")
	}
	var out bytes.Buffer
	encoder := yaml.NewEncoder(&out)
	encoder.SetIndent(2)
	if err := encoder.Encode(node); err != nil {
		return nil, err
	}
	// textNode double-quotes strings with such characters, so the escapes are valid.
	return escape(out.Bytes(), func(r rune) string { return fmt.Sprintf(`\U%08x`, r) }), nil
}

// readNode reads the next JSON value.
func readNode(decoder *json.Decoder) (*yaml.Node, error) {
	token, err := decoder.Token()
	if err != nil {
		return nil, err
	}
	switch value := token.(type) {
	case json.Delim:
		return readNodes(decoder, value)
	case string:
		return textNode(value), nil
	case nil:
		return &yaml.Node{Kind: yaml.ScalarNode, Value: "null"}, nil
	default: // a number or boolean
		return &yaml.Node{Kind: yaml.ScalarNode, Value: fmt.Sprint(value)}, nil
	}
}

// readNodes reads the rest of an object or array. Object names and values alternate.
func readNodes(decoder *json.Decoder, begin json.Delim) (*yaml.Node, error) {
	node := &yaml.Node{Kind: yaml.SequenceNode}
	if begin == '{' {
		node.Kind = yaml.MappingNode
	}
	for decoder.More() {
		child, err := readNode(decoder)
		if err != nil {
			return nil, err
		}
		node.Content = append(node.Content, child)
	}
	if len(node.Content) == 0 {
		node.Style = yaml.FlowStyle
	}
	_, err := decoder.Token()
	return node, err
}

var (
	// unquotedText matches strings that need no quotes in YAML, apart from reservedWords.
	unquotedText = regexp.MustCompile(`^[A-Za-z_/](?:[A-Za-z0-9 _./@+-]|:[A-Za-z0-9_/])*$`)
	// number matches strings that a YAML parser may read as numbers.
	number        = regexp.MustCompile(`^[-+.]?\d`)
	reservedWords = map[string]bool{
		"": true, "y": true, "n": true, "yes": true, "no": true, "on": true, "off": true, "true": true, "false": true, "null": true,
	}
)

// textNode returns a string node with the least quoting that every parser reads as a
// string.
func textNode(text string) *yaml.Node {
	node := &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: text}
	switch {
	case reservedWords[strings.ToLower(text)] || number.MatchString(text) || strings.ContainsFunc(text, unprintable):
		node.Style = yaml.DoubleQuotedStyle
	case !unquotedText.MatchString(text) || strings.HasSuffix(text, " "):
		node.Style = yaml.SingleQuotedStyle
	}
	return node
}

func unprintable(r rune) bool { return !unicode.IsPrint(r) }
