package cli

import (
	"fmt"
	"io"
	"strings"
	"unicode"
	"unicode/utf8"
)

const (
	// gap separates columns; indent starts the continuation lines of a row.
	gap    = "  "
	indent = "  "
	// minValue is the smallest width to which the values of a record are wrapped.
	minValue = 20
)

// tone is the meaning of a text, shown as a colour on a terminal.
type tone string

// The tones, as ANSI SGR parameters.
const (
	neutral tone = ""
	good    tone = "32"
	bad     tone = "31"
	waiting tone = "33"
	busy    tone = "36"
	faint   tone = "2"
)

// cell is one cell of a table. Empty text is shown as - unless blank is set.
type cell struct {
	text  string
	tone  tone
	blank bool
}

func plain(text string) cell { return cell{text: text} }

type column struct {
	title string
	// wide columns are only shown with -o wide.
	wide bool
	// drop is the order in which columns are hidden if the terminal is too narrow, lowest
	// first; free text is printed below its row instead. Columns with 0 are never hidden.
	drop int
	// text marks free text, which only the last column can contain.
	text bool
}

// table is a list formatted for people.
type table struct {
	columns []column
	rows    [][]cell
}

// add appends a row, with one cell for each column, including wide columns.
func (t *table) add(row ...cell) { t.rows = append(t.rows, row) }

// tableOptions control how a table is printed.
type tableOptions struct {
	wide, headers, colour bool
	// width is the terminal's width; with 0 every row takes one line.
	width int
}

// write prints the table, and returns the titles of the columns that are hidden because
// the terminal is too narrow. Text is made printable and is never truncated.
func (t *table) write(w io.Writer, o tableOptions) (hidden []string) {
	shown := t.visible(o.wide)
	layout := shown.arrange(o)
	if o.headers {
		titles := make([]cell, len(shown.columns))
		for i, c := range shown.columns {
			titles[i] = plain(c.title)
			if c.text && layout.textBelow {
				titles[i] = cell{blank: true}
			}
		}
		layout.writeRow(w, titles, false)
	}
	for _, row := range shown.rows {
		layout.writeRow(w, row, o.colour)
	}
	return layout.hidden
}

// visible returns the table without wide columns, unless wide is set, and with printable
// text.
func (t *table) visible(wide bool) *table {
	out := &table{}
	for _, c := range t.columns {
		if !c.wide || wide {
			out.columns = append(out.columns, c)
		}
	}
	for _, row := range t.rows {
		var shown []cell
		for i, c := range t.columns {
			if c.wide && !wide {
				continue
			}
			entry := row[i]
			entry.text = printable(entry.text)
			if entry.text == "" && !entry.blank {
				entry.text = "-"
			}
			shown = append(shown, entry)
		}
		out.rows = append(out.rows, shown)
	}
	return out
}

// field appends a row to a table that shows one record as name and value columns.
func (t *table) field(name string, value cell) { t.add(plain(name), value) }

// writeFields prints a table that shows one record. Values that are too long for the
// terminal are wrapped at words.
func (t *table) writeFields(w io.Writer, o tableOptions) {
	shown := t.visible(o.wide)
	nameWidth := 0
	for _, row := range shown.rows {
		nameWidth = max(nameWidth, utf8.RuneCountInString(row[0].text))
	}
	for _, row := range shown.rows {
		lines := []string{row[1].text}
		if o.width > 0 {
			lines = wrap(row[1].text, max(o.width-nameWidth-len(gap), minValue))
		}
		name := row[0].text
		for _, line := range lines {
			text := fmt.Sprintf("%-*s%s%s", nameWidth, name, gap, paint(line, row[1].tone, o.colour))
			fmt.Fprintln(w, strings.TrimRight(text, " "))
			name = ""
		}
	}
}

func paint(text string, t tone, colour bool) string {
	if !colour || t == neutral {
		return text
	}
	return "\x1b[" + string(t) + "m" + text + "\x1b[0m"
}

// printable returns the text as one line without control characters, so that text from
// an agent cannot control the terminal.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t' || r == '\r':
			return ' '
		case !unicode.IsPrint(r):
			return unicode.ReplacementChar
		default:
			return r
		}
	}, text)
}
