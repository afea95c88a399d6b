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

// structured reports whether the output is for programs.
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

// writeTable shows a table. If it has no rows, it prints none to stderr; if it leaves out
// columns, it says so on a terminal.
func (in *invocation) writeTable(t table, none string) {
	if len(t.rows) == 0 {
		fmt.Fprintln(in.stderr, none)
		return
	}
	l := look{wide: in.Output == outWide, headers: !in.NoHeaders, colour: in.colour(), width: in.width()}
	if l.wide {
		l.width = 0
	}
	if dropped := t.write(in.stdout, l); len(dropped) > 0 && in.reports {
		fmt.Fprintf(in.stderr, "Hidden columns: %s. -o wide shows all columns.\n", strings.Join(dropped, ", "))
	}
}

// writeList writes the records as one document, or as a table.
func writeList[M proto.Message](in *invocation, records []M, t table, none string) error {
	if !in.structured() {
		in.writeTable(t, none)
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

// writeRecord writes one record as a document, or its fields, one per line.
func (in *invocation) writeRecord(record proto.Message, fields table) error {
	if in.structured() {
		document, err := protoDocument(record)
		if err != nil {
			return err
		}
		return in.writeValue(document)
	}
	l := look{colour: in.colour(), width: in.width()}
	if in.Output == outWide {
		l.width = 0
	}
	fields.writeFields(in.stdout, l)
	return nil
}

// writeLine writes one record of an endless list: a line of JSON, or a document of YAML.
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

// writeValue writes a document in the chosen form.
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

// protoDocument returns ProtoJSON without white space: that of the library varies.
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

// when shows a point in time: how long ago, or in wide output RFC 3339.
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

// whenBoth shows a point in time both ways.
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

// relative says how far a time is from now, in its largest unit.
func relative(now, t time.Time) string {
	d := now.Sub(t)
	if d < 0 {
		return "in " + rough(-d)
	}
	if d < time.Second {
		return "now"
	}
	return rough(d) + " ago"
}

func rough(d time.Duration) string {
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
