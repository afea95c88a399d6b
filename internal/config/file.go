package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"strings"
	"time"

	"github.com/alecthomas/kong"
	"go.yaml.in/yaml/v3"
)

// configOption is the option for the configuration file.
const configOption = "config"

// configFile has the values of a configuration file by option.
type configFile map[string]fileValue

type fileValue struct {
	// text is the value in the form of a flag.
	text   string
	origin string
}

// readConfig reads a YAML file of options and the section about operators. All of it must be
// valid, including values that flags or the environment override. It returns an *OptionError,
// for --config if the file cannot be read or parsed, and for an option that is invalid.
func readConfig(path string, options map[string]*kong.Flag) (file configFile, operators Operators, err error) {
	lines, err := readYAML(path)
	if err != nil {
		return nil, Operators{}, &OptionError{Option: configOption, Rule: err.Error()}
	}
	file = configFile{}
	sectionSeen := false
	for i := 0; i+1 < len(lines); i += 2 {
		key, value := lines[i], lines[i+1]
		origin := fmt.Sprintf("%s, line %d", path, key.Line)
		if key.Value == operatorsSection {
			if sectionSeen {
				return nil, Operators{}, section{name: operatorsSection, file: path, line: key.Line}.invalid("must be set once")
			}
			sectionSeen = true
			if operators, err = readOperators(path, key, value); err != nil {
				return nil, Operators{}, err
			}
			continue
		}
		flag, known := options[key.Value]
		if !known || key.Value == configOption {
			return nil, Operators{}, unknownKey(key.Value, origin, options)
		}
		if _, twice := file[key.Value]; twice {
			return nil, Operators{}, &OptionError{Option: key.Value, Rule: "must be set once in a file", Origin: origin}
		}
		text, rule := scalarText(flag.Target.Type(), resolveAlias(value))
		if rule != "" {
			return nil, Operators{}, &OptionError{Option: key.Value, Rule: rule, Origin: origin}
		}
		file[key.Value] = fileValue{text: text, origin: origin}
	}
	return file, operators, nil
}

// readYAML returns the keys of the file, each followed by its value.
func readYAML(path string) ([]*yaml.Node, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("must name a file that can be read: %w", err)
	}
	var doc, second yaml.Node
	dec := yaml.NewDecoder(bytes.NewReader(content))
	switch err := dec.Decode(&doc); {
	case errors.Is(err, io.EOF):
		return nil, nil
	case err != nil && strings.Contains(err.Error(), "anchor"):
		// The parser's error contains the value, which may be a token.
		return nil, fmt.Errorf("must name a file of YAML: %s uses an alias without its anchor; quote values that begin with *", path)
	case err != nil:
		return nil, fmt.Errorf("must name a file of YAML: %s: %w", path, err)
	}
	root := doc.Content[0]
	if root.Kind == yaml.ScalarNode && root.ShortTag() == "!!null" {
		return nil, nil
	}
	if root.Kind != yaml.MappingNode {
		return nil, fmt.Errorf("must name a file with lines of the form option: value, not %s", path)
	}
	if err := dec.Decode(&second); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("must name a file with one YAML document, not %s", path)
	}
	return root.Content, nil
}

// scalarText returns a value in the form of a flag, or the rule that it violates.
func scalarText(want reflect.Type, n *yaml.Node) (text, rule string) {
	tag := n.ShortTag()
	if n.Kind != yaml.ScalarNode {
		tag = ""
	}
	switch {
	case want == reflect.TypeFor[time.Duration]():
		return unitText(n, tag, durationRule)
	case want == reflect.TypeFor[Size]():
		return unitText(n, tag, sizeRule)
	case want == reflect.TypeFor[[]string]():
		return listText(n, tag)
	case want.Kind() == reflect.Bool:
		if tag == "!!bool" {
			return n.Value, ""
		}
		return "", switchRule
	case want.Kind() == reflect.Int:
		if tag == "!!int" {
			return n.Value, ""
		}
		return "", "must be a whole number"
	case tag == "!!str":
		return n.Value, ""
	default:
		return "", "must be a text: put it in quotes"
	}
}

// unitText returns a value that needs a unit unless it is 0.
func unitText(n *yaml.Node, tag, unitRule string) (text, rule string) {
	if tag == "!!str" || tag == "!!int" && n.Value == "0" {
		return n.Value, ""
	}
	return "", unitRule
}

func listText(n *yaml.Node, tag string) (text, rule string) {
	const listRule = "must be a list of texts, or one text with commas"
	if tag == "!!str" {
		return n.Value, ""
	}
	if n.Kind != yaml.SequenceNode {
		return "", listRule
	}
	items := make([]string, 0, len(n.Content))
	for _, item := range n.Content {
		item = resolveAlias(item)
		if item.Kind != yaml.ScalarNode || item.ShortTag() != "!!str" {
			return "", listRule
		}
		items = append(items, item.Value)
	}
	return strings.Join(items, ","), ""
}

func resolveAlias(n *yaml.Node) *yaml.Node {
	if n.Kind == yaml.AliasNode {
		return n.Alias
	}
	return n
}

func unknownKey(key, origin string, options map[string]*kong.Flag) error {
	guess := strings.ToLower(strings.ReplaceAll(strings.TrimLeft(key, "-"), "_", "-"))
	switch _, near := options[guess]; {
	case key == configOption:
		return &OptionError{Option: key, Rule: "must be a flag or in the environment: a file cannot name another file", Origin: origin}
	case alike(key, operatorsSection):
		return fmt.Errorf("there is no option %q; did you mean %q? (from %s)", key, operatorsSection, origin)
	case near && guess != configOption:
		return fmt.Errorf("there is no option %q; did you mean %q? (from %s)", key, guess, origin)
	default:
		return fmt.Errorf("there is no option %q (from %s)", key, origin)
	}
}
