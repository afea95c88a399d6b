package cli

import (
	"fmt"
	"io"
	"strings"
	"unicode"
	"unicode/utf8"
)

// A column is never cut to less than minWidth; gap is what stands between two.
const (
	minWidth = 5
	gap      = "  "
)

// tone is how a text is meant; on a terminal it has a colour.
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
	// wide columns are left out of narrow tables.
	wide bool
	// Where there is no room cut columns give way first, and keep columns last.
	cut, keep bool
}

// table is what people read of a list.
type table struct {
	columns []column
	rows    [][]cell
}

// add appends a row: one cell for each column, wide ones too.
func (t *table) add(row ...cell) { t.rows = append(t.rows, row) }

// look is how a table is shown.
type look struct {
	wide, headers, colour bool
	// width is that of the terminal; 0 cuts nothing.
	width int
}

// write shows the table. Everything that came from outside is made printable.
func (t *table) write(w io.Writer, l look) {
	t = t.visible(l.wide)
	widths := make([]int, len(t.columns))
	for i, c := range t.columns {
		if l.headers {
			widths[i] = len(c.title)
		}
		for _, row := range t.rows {
			widths[i] = max(widths[i], utf8.RuneCountInString(row[i].text))
		}
	}
	if l.width > 0 {
		t.fit(widths, l.width)
	}
	if l.headers {
		titles := make([]cell, len(t.columns))
		for i, c := range t.columns {
			titles[i] = plain(c.title)
		}
		writeRow(w, titles, widths, false)
	}
	for _, row := range t.rows {
		writeRow(w, row, widths, l.colour)
	}
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

// fit takes away from the widest of the columns to be cut until all fit, then
// from the widest of those that are not to be kept, then from the widest of all.
func (t *table) fit(widths []int, room int) {
	total := len(gap) * (len(widths) - 1)
	for _, width := range widths {
		total += width
	}
	for _, mayCut := range []func(column) bool{
		func(c column) bool { return c.cut },
		func(c column) bool { return !c.keep },
		func(column) bool { return true },
	} {
		for ; total > room; total-- {
			widest := -1
			for i, width := range widths {
				if mayCut(t.columns[i]) && width > minWidth && (widest < 0 || width > widths[widest]) {
					widest = i
				}
			}
			if widest < 0 {
				break
			}
			widths[widest]--
		}
	}
}

func writeRow(w io.Writer, row []cell, widths []int, colour bool) {
	var b strings.Builder
	for i, c := range row {
		text := shorten(c.text, widths[i])
		pad := widths[i] - utf8.RuneCountInString(text)
		b.WriteString(paint(text, c.tone, colour))
		if i < len(row)-1 {
			b.WriteString(strings.Repeat(" ", pad) + gap)
		}
	}
	fmt.Fprintln(w, strings.TrimRight(b.String(), " "))
}

// shorten cuts the text to a width; what is cut ends in an ellipsis.
func shorten(text string, width int) string {
	if utf8.RuneCountInString(text) <= width {
		return text
	}
	runes := []rune(text)
	return string(runes[:max(width-1, 0)]) + "…"
}

func paint(text string, t tone, colour bool) string {
	if !colour || t == neutral {
		return text
	}
	return "\x1b[" + string(t) + "m" + text + "\x1b[0m"
}

// printable returns the text as one line without control characters: what an
// agent reports must not steer the terminal.
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
