package cli

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"
)

// minText is the least width, in characters, that is worth giving to free text. Text is
// never truncated below it, and a text column with less room is printed below its rows.
const minText = 48

// layout is how a table's columns are arranged on a terminal.
type layout struct {
	widths []int
	// lines are the columns on each line of a row. A row takes more than one line only
	// if the columns that cannot be hidden do not fit on one. Free text comes last.
	lines [][]int
	// textColumn is the index of the free-text column, or -1. Text wider than textRoom
	// is printed below its row; textBelow is set when every text is.
	textColumn, textRoom int
	textBelow            bool
	// width is the terminal's width; 0 is unlimited.
	width  int
	hidden []string
}

// arrange chooses the layout with the fewest lines per row, and among those the one that
// shows the most columns.
func (t *table) arrange(o tableOptions) *layout {
	l := &layout{widths: t.widths(o.headers), textColumn: -1, width: o.width}
	if last := len(t.columns) - 1; t.columns[last].text {
		l.textColumn = last
	}
	hidden := t.hideColumns(l)
	l.lines, l.textRoom = l.breakLines(hidden)
	for i, c := range t.columns {
		switch {
		case !hidden[i]:
		case i == l.textColumn:
			l.textBelow = true
		default:
			l.hidden = append(l.hidden, c.title)
		}
	}
	return l
}

// widths returns the width of each column.
func (t *table) widths(headers bool) []int {
	widths := make([]int, len(t.columns))
	for i, c := range t.columns {
		if headers {
			widths[i] = utf8.RuneCountInString(c.title)
		}
		for _, row := range t.rows {
			widths[i] = max(widths[i], utf8.RuneCountInString(row[i].text))
		}
	}
	return widths
}

// hideColumns returns which columns to hide so that a row takes the fewest lines. It
// hides columns in their drop order, then restores those that still fit.
func (t *table) hideColumns(l *layout) []bool {
	var order []int
	hidden, all := make([]bool, len(t.columns)), make([]bool, len(t.columns))
	for i, c := range t.columns {
		if c.drop > 0 {
			order = append(order, i)
			all[i] = true
		}
	}
	slices.SortFunc(order, func(a, b int) int { return cmp.Compare(t.columns[a].drop, t.columns[b].drop) })
	fewest, _ := l.breakLines(all)
	fits := func() bool {
		lines, _ := l.breakLines(hidden)
		return len(lines) <= len(fewest)
	}
	n := 0
	for ; n < len(order) && !fits(); n++ {
		hidden[order[n]] = true
	}
	for _, i := range slices.Backward(order[:n]) {
		hidden[i] = false
		hidden[i] = !fits()
	}
	return hidden
}

// breakLines distributes the visible columns over the lines of a row, and returns the
// remaining width of the last line, which is available to the text. The text column needs
// minText, or its own width if that is less.
func (l *layout) breakLines(hidden []bool) (lines [][]int, remaining int) {
	lines, remaining = [][]int{nil}, l.width
	for i, width := range l.widths {
		last := len(lines) - 1
		if hidden[i] {
			if i == l.textColumn {
				lines[last] = append(lines[last], i)
			}
			continue
		}
		if i == l.textColumn {
			width = min(width, minText)
		}
		if l.width > 0 && remaining < width && len(lines[last]) > 0 {
			lines, remaining = append(lines, nil), l.width-len(indent)
			last++
		}
		lines[last] = append(lines[last], i)
		if i != l.textColumn {
			remaining -= width + len(gap)
		}
	}
	return lines, remaining
}

// writeRow prints a row, with its text below it if the text does not fit.
func (l *layout) writeRow(w io.Writer, row []cell, colour bool) {
	for n, columns := range l.lines {
		var b strings.Builder
		if n > 0 {
			b.WriteString(indent)
		}
		for _, i := range columns {
			if i == l.textColumn && l.printsBelow(row[i]) {
				continue
			}
			pad := l.widths[i] - utf8.RuneCountInString(row[i].text)
			b.WriteString(paint(row[i].text, row[i].tone, colour) + strings.Repeat(" ", max(pad, 0)) + gap)
		}
		fmt.Fprintln(w, strings.TrimRight(b.String(), " "))
	}
	if l.textColumn < 0 || !l.printsBelow(row[l.textColumn]) || row[l.textColumn].text == "-" {
		return
	}
	for _, line := range wrap(row[l.textColumn].text, l.width-len(indent)) {
		fmt.Fprintln(w, indent+paint(line, row[l.textColumn].tone, colour))
	}
}

// printsBelow reports whether this text is printed below its row.
func (l *layout) printsBelow(c cell) bool {
	return l.width > 0 && c.text != "" && (l.textBelow || utf8.RuneCountInString(c.text) > l.textRoom)
}

// wrap wraps the text at words to this width. A longer word gets a line of its own and is
// not broken.
func wrap(text string, width int) []string {
	if utf8.RuneCountInString(text) <= width {
		return []string{text}
	}
	var lines []string
	line, used := "", 0
	for word := range strings.FieldsSeq(text) {
		n := utf8.RuneCountInString(word)
		if line != "" && used+1+n > width {
			lines = append(lines, line)
			line = ""
		}
		if line == "" {
			line, used = word, n
		} else {
			line, used = line+" "+word, used+1+n
		}
	}
	return append(lines, line)
}

// truncate shortens the text to a width; truncated text ends with an ellipsis.
func truncate(text string, width int) string {
	if utf8.RuneCountInString(text) <= width {
		return text
	}
	runes := []rune(text)
	return string(runes[:max(width-1, 0)]) + "…"
}

// wrapWriter wraps lines that are wider than the terminal at words, with continuation
// lines indented. Lines with cursor control sequences are passed through unchanged.
type wrapWriter struct {
	io.Writer
	// width returns the terminal's current width.
	width func() int
}

// Write writes the lines of p; the last one may lack a newline.
func (o wrapWriter) Write(p []byte) (int, error) {
	var out strings.Builder
	for line := range strings.Lines(string(p)) {
		text := strings.TrimLeft(line, " ")
		prefix := line[:len(line)-len(text)]
		body := strings.TrimRight(text, " \n")
		if strings.ContainsAny(line, "\r\x1b") {
			out.WriteString(line)
			continue
		}
		parts := wrap(body, max(o.width()-len(prefix)-len(indent), minText))
		if utf8.RuneCountInString(prefix+body) <= o.width() {
			parts = []string{body}
		}
		out.WriteString(prefix + strings.Join(parts, "\n"+prefix+indent) + text[len(body):])
	}
	if _, err := io.WriteString(o.Writer, out.String()); err != nil {
		return 0, err
	}
	return len(p), nil
}
