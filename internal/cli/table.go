package cli

import (
	"fmt"
	"io"
	"strings"
	"unicode"
	"unicode/utf8"
)

const (
	// gap stands between two columns, and indent begins the lines below a row.
	gap    = "  "
	indent = "  "
	// minValue is the narrowest that the values of a record are wrapped to.
	minValue = 20
)

// tone is the meaning of a text, which a terminal shows as a colour.
type tone string

// The tones, as the parameters of terminals.
const (
	neutral tone = ""
	good    tone = "32"
	bad     tone = "31"
	waiting tone = "33"
	busy    tone = "36"
	faint   tone = "2"
)

// cell is one text of a table. An empty one is shown as -, unless it is blank.
type cell struct {
	text  string
	tone  tone
	blank bool
}

func plain(text string) cell { return cell{text: text} }

// column is one column of a table.
type column struct {
	title string
	// wide columns are shown with -o wide only.
	wide bool
	// If the terminal is too narrow, columns give way one after the other, the lowest drop
	// first: text goes below its row, any other column is left out. 0 always stays.
	drop int
	// text is free text. Only the last column may be.
	text bool
}

// table is a list in a form for people.
type table struct {
	columns []column
	rows    [][]cell
}

// add appends a row: one cell for each column, wide ones too.
func (t *table) add(row ...cell) { t.rows = append(t.rows, row) }

// look is how a table is shown.
type look struct {
	wide, headers, colour bool
	// width is that of the terminal; 0 shows every row in one line.
	width int
}

// write shows the table, and returns the titles of the columns that were left out
// because the terminal is too narrow. All text is made printable, and none is cut.
func (t *table) write(w io.Writer, l look) (dropped []string) {
	shown := t.visible(l.wide)
	form := shown.arrange(l)
	if l.headers {
		titles := make([]cell, len(shown.columns))
		for i, c := range shown.columns {
			titles[i] = plain(c.title)
			if c.text && form.below {
				titles[i] = cell{blank: true}
			}
		}
		form.writeRow(w, titles, false)
	}
	for _, row := range shown.rows {
		form.writeRow(w, row, l.colour)
	}
	return form.dropped
}

// visible returns the columns to be shown, with printable texts.
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

// field appends a row to the table of one record, which has two columns: names and
// values.
func (t *table) field(name string, value cell) { t.add(plain(name), value) }

// writeFields shows the table of one record. A value that is too long for the terminal is
// wrapped at words.
func (t *table) writeFields(w io.Writer, l look) {
	shown := t.visible(l.wide)
	names := 0
	for _, row := range shown.rows {
		names = max(names, utf8.RuneCountInString(row[0].text))
	}
	for _, row := range shown.rows {
		lines := []string{row[1].text}
		if l.width > 0 {
			lines = wrap(row[1].text, max(l.width-names-len(gap), minValue))
		}
		name := row[0].text
		for _, line := range lines {
			text := fmt.Sprintf("%-*s%s%s", names, name, gap, paint(line, row[1].tone, l.colour))
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

// printable returns the text as one line without control characters: what an agent
// reports must not control the terminal.
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
