package cli

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"
)

// usefulText is how many characters of a text are enough to be useful: no text is cut to
// less, and a column of texts that has less room goes below its rows.
const usefulText = 48

// form is how the rows of a table are put on a terminal.
type form struct {
	widths []int
	// lines are the columns of each line of a row: of one, unless the terminal is too
	// narrow for what cannot be left out. The text, if there is one, ends the last.
	lines [][]int
	// text is the column that is free text, -1 for none. A text that does not fit into
	// room goes below its row; below is set when all do.
	text, room int
	below      bool
	// width is that of the terminal; 0 has room for everything.
	width   int
	dropped []string
}

// arrange finds the form in which the table fits the terminal: in as few lines a row as
// possible, and then with as many columns as possible.
func (t *table) arrange(l look) *form {
	f := &form{widths: t.widths(l.headers), text: -1, width: l.width}
	if last := len(t.columns) - 1; t.columns[last].text {
		f.text = last
	}
	gone := t.giveWay(f)
	f.lines, f.room = f.fold(gone)
	for i, c := range t.columns {
		switch {
		case !gone[i]:
		case i == f.text:
			f.below = true
		default:
			f.dropped = append(f.dropped, c.title)
		}
	}
	return f
}

// widths returns how wide each column is.
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

// giveWay returns which columns have to give way, in their order, for a row to have as
// few lines as possible; those for which there is room after all stay.
func (t *table) giveWay(f *form) []bool {
	var order []int
	gone, all := make([]bool, len(t.columns)), make([]bool, len(t.columns))
	for i, c := range t.columns {
		if c.drop > 0 {
			order = append(order, i)
			all[i] = true
		}
	}
	slices.SortFunc(order, func(a, b int) int { return cmp.Compare(t.columns[a].drop, t.columns[b].drop) })
	least, _ := f.fold(all)
	fits := func() bool {
		lines, _ := f.fold(gone)
		return len(lines) <= len(least)
	}
	n := 0
	for ; n < len(order) && !fits(); n++ {
		gone[order[n]] = true
	}
	for _, i := range slices.Backward(order[:n]) {
		gone[i] = false
		gone[i] = !fits()
	}
	return gone
}

// fold returns the columns of each line of a row without those that are gone, and how
// much room its last line has for the text. A text must have room for usefulText, if it
// is as long.
func (f *form) fold(gone []bool) (lines [][]int, room int) {
	lines, room = [][]int{nil}, f.width
	for i, width := range f.widths {
		last := len(lines) - 1
		if gone[i] {
			if i == f.text {
				lines[last] = append(lines[last], i)
			}
			continue
		}
		if i == f.text {
			width = min(width, usefulText)
		}
		if f.width > 0 && room < width && len(lines[last]) > 0 {
			lines, room = append(lines, nil), f.width-len(indent)
			last++
		}
		lines[last] = append(lines[last], i)
		if i != f.text {
			room -= width + len(gap)
		}
	}
	return lines, room
}

// writeRow shows a row: its lines, and its text below them if it has no room there.
func (f *form) writeRow(w io.Writer, row []cell, colour bool) {
	for n, columns := range f.lines {
		var b strings.Builder
		if n > 0 {
			b.WriteString(indent)
		}
		for _, i := range columns {
			if i == f.text && f.belowRow(row[i]) {
				continue // It comes last.
			}
			pad := f.widths[i] - utf8.RuneCountInString(row[i].text)
			b.WriteString(paint(row[i].text, row[i].tone, colour) + strings.Repeat(" ", max(pad, 0)) + gap)
		}
		fmt.Fprintln(w, strings.TrimRight(b.String(), " "))
	}
	if f.text < 0 || !f.belowRow(row[f.text]) || row[f.text].text == "-" {
		return
	}
	for _, line := range wrap(row[f.text].text, f.width-len(indent)) {
		fmt.Fprintln(w, indent+paint(line, row[f.text].tone, colour))
	}
}

// belowRow reports whether this text goes below its row.
func (f *form) belowRow(c cell) bool {
	return f.width > 0 && c.text != "" && (f.below || utf8.RuneCountInString(c.text) > f.room)
}

// wrap returns the text in lines of this width, without breaking a word: one that is
// longer has a line of its own.
func wrap(text string, width int) []string {
	if utf8.RuneCountInString(text) <= width {
		return []string{text}
	}
	var lines []string
	line, taken := "", 0
	for word := range strings.FieldsSeq(text) {
		n := utf8.RuneCountInString(word)
		if line != "" && taken+1+n > width {
			lines = append(lines, line)
			line = ""
		}
		if line == "" {
			line, taken = word, n
		} else {
			line, taken = line+" "+word, taken+1+n
		}
	}
	return append(lines, line)
}

// shorten cuts the text to a width; what is cut ends in an ellipsis.
func shorten(text string, width int) string {
	if utf8.RuneCountInString(text) <= width {
		return text
	}
	runes := []rune(text)
	return string(runes[:max(width-1, 0)]) + "…"
}

// wrapping writes text to a terminal, and wraps lines that are wider than it at words;
// what follows is indented. A line that moves the cursor stays as it is.
type wrapping struct {
	io.Writer
	// width is that of the terminal as it is now.
	width func() int
}

// Write writes the lines of p, the last of which may have no end.
func (o wrapping) Write(p []byte) (int, error) {
	var out strings.Builder
	for line := range strings.Lines(string(p)) {
		text := strings.TrimLeft(line, " ")
		lead := line[:len(line)-len(text)]
		body := strings.TrimRight(text, " \n")
		if strings.ContainsAny(line, "\r\x1b") {
			out.WriteString(line)
			continue
		}
		parts := wrap(body, max(o.width()-len(lead)-len(indent), usefulText))
		if utf8.RuneCountInString(lead+body) <= o.width() {
			parts = []string{body}
		}
		out.WriteString(lead + strings.Join(parts, "\n"+lead+indent) + text[len(body):])
	}
	if _, err := io.WriteString(o.Writer, out.String()); err != nil {
		return 0, err
	}
	return len(p), nil
}
