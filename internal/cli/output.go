package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// structured reports whether the output format is JSON or YAML.
func (in *invocation) structured() bool { return in.Output == outJSON || in.Output == outYAML }

// colour reports whether to use colours on stdout.
func (in *invocation) colour() bool {
	switch in.Color {
	case "always":
		return true
	case "never":
		return false
	default:
		return in.width() > 0 && in.environ["NO_COLOR"] == "" && in.environ["TERM"] != "dumb"
	}
}

// writeTable prints a table, or the empty message to stderr if it has no rows. On a
// terminal it names the hidden columns.
func (in *invocation) writeTable(t table, emptyMessage string) {
	if len(t.rows) == 0 {
		fmt.Fprintln(in.stderr, emptyMessage)
		return
	}
	o := tableOptions{wide: in.Output == outWide, headers: !in.NoHeaders, colour: in.colour(), width: in.width()}
	if o.wide {
		o.width = 0
	}
	if hidden := t.write(in.stdout, o); len(hidden) > 0 && in.stderrTTY {
		fmt.Fprintf(in.stderr, "Hidden columns: %s. -o wide shows all columns.\n", strings.Join(hidden, ", "))
	}
}

// writeList prints the records as one JSON or YAML document, or as a table.
func writeList[M proto.Message](in *invocation, records []M, t table, emptyMessage string) error {
	if !in.structured() {
		in.writeTable(t, emptyMessage)
		return nil
	}
	list := make([]json.RawMessage, 0, len(records))
	for _, record := range records {
		document, err := protoDocument(record)
		if err != nil {
			return err
		}
		list = append(list, document)
	}
	return in.writeValue(list)
}

// writeRecord prints one record as a JSON or YAML document, or as its fields.
func (in *invocation) writeRecord(record proto.Message, fields table) error {
	if in.structured() {
		document, err := protoDocument(record)
		if err != nil {
			return err
		}
		return in.writeValue(document)
	}
	o := tableOptions{colour: in.colour(), width: in.width()}
	if in.Output == outWide {
		o.width = 0
	}
	fields.writeFields(in.stdout, o)
	return nil
}

// writeLine prints one record of a stream: one line of JSON, or one YAML document.
func (in *invocation) writeLine(record proto.Message) error {
	document, err := protoDocument(record)
	if err != nil {
		return err
	}
	if in.Output == outYAML {
		fmt.Fprintln(in.stdout, "---")
		return in.writeValue(document)
	}
	_, err = fmt.Fprintf(in.stdout, "%s\n", escapeJSON(document))
	return err
}

// writeValue prints a value as JSON or YAML.
func (in *invocation) writeValue(v any) error {
	document, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return fmt.Errorf("output: %w", err)
	}
	document = append(escapeJSON(document), '\n')
	if in.Output == outYAML {
		if document, err = jsonToYAML(document); err != nil {
			return fmt.Errorf("output: %w", err)
		}
	}
	_, err = in.stdout.Write(document)
	return err
}

// protoDocument returns compact ProtoJSON, because protojson varies its whitespace.
func protoDocument(m proto.Message) (json.RawMessage, error) {
	document, err := protojson.MarshalOptions{EmitDefaultValues: true}.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("output: %w", err)
	}
	var compact bytes.Buffer
	if err := json.Compact(&compact, document); err != nil {
		return nil, fmt.Errorf("output: %w", err)
	}
	return compact.Bytes(), nil
}

// when formats a time relative to now, or as RFC 3339 in wide output.
func (in *invocation) when(ts *timestamppb.Timestamp) cell {
	switch {
	case ts == nil:
		return cell{}
	case in.Output == outWide:
		return plain(clockTime(ts))
	default:
		return plain(relative(in.now(), ts.AsTime()))
	}
}

// whenBoth formats a time as RFC 3339 and relative to now.
func (in *invocation) whenBoth(ts *timestamppb.Timestamp) cell {
	if ts == nil {
		return cell{}
	}
	return plain(fmt.Sprintf("%s (%s)", clockTime(ts), relative(in.now(), ts.AsTime())))
}

func clockTime(ts *timestamppb.Timestamp) string {
	if ts == nil {
		return ""
	}
	return ts.AsTime().Format(time.RFC3339)
}

// relative formats the distance of t from now in its largest unit.
func relative(now, t time.Time) string {
	d := now.Sub(t)
	if d < 0 {
		return "in " + largestUnit(-d)
	}
	if d < time.Second {
		return "now"
	}
	return largestUnit(d) + " ago"
}

func largestUnit(d time.Duration) string {
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", int(d.Hours()))
	default:
		return fmt.Sprintf("%dd", int(d.Hours())/24)
	}
}
