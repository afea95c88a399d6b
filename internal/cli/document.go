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

// escapeJSON returns the same document with an escape for each character that could
// control a terminal or mislead its reader: control characters, those that change the
// direction of text, and others that are invisible.
func escapeJSON(document []byte) []byte {
	return escape(document, func(r rune) string {
		if high, low := utf16.EncodeRune(r); high != unicode.ReplacementChar {
			return fmt.Sprintf(`\u%04x\u%04x`, high, low)
		}
		return fmt.Sprintf(`\u%04x`, r)
	})
}

// escape replaces characters that are not printable, apart from line ends: a document has
// those only between its texts.
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

// jsonToYAML keeps the order of the fields, and that texts are texts for every reader of
// YAML 1.1 and 1.2. It escapes what escapeJSON escapes.
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
	// textNode has put such characters between double quotes.
	return escape(out.Bytes(), func(r rune) string { return fmt.Sprintf(`\U%08x`, r) }), nil
}

// readNode reads the next value of a document of JSON.
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
	default: // a number, or true or false
		return &yaml.Node{Kind: yaml.ScalarNode, Value: fmt.Sprint(value)}, nil
	}
}

// readNodes reads the rest of an object, names and values in turns, or of an array.
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
	// bare are texts that YAML reads as themselves without quotes, except words
	// that mean something.
	bare = regexp.MustCompile(`^[A-Za-z_/](?:[A-Za-z0-9 _./@+-]|:[A-Za-z0-9_/])*$`)
	// number matches texts that may be numbers: they begin with a digit, sign or point.
	number = regexp.MustCompile(`^[-+.]?\d`)
	words  = map[string]bool{
		"": true, "y": true, "n": true, "yes": true, "no": true, "on": true, "off": true, "true": true, "false": true, "null": true,
	}
)

// textNode returns a text in the plainest form that every reader reads as that text.
func textNode(text string) *yaml.Node {
	node := &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: text}
	switch {
	case words[strings.ToLower(text)] || number.MatchString(text) || strings.ContainsFunc(text, unprintable):
		node.Style = yaml.DoubleQuotedStyle
	case !bare.MatchString(text) || strings.HasSuffix(text, " "):
		node.Style = yaml.SingleQuotedStyle
	}
	return node
}

func unprintable(r rune) bool { return !unicode.IsPrint(r) }
