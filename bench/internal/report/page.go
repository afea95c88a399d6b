package report

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/mig-controller/mig-controller/bench/internal/result"
)

// The marks between which a page is generated.
const (
	beginMark = "<!-- bench report: generated from here -->"
	endMark   = "<!-- bench report: to here -->"
)

// newPage is the page where there is none yet.
const newPage = "# Performance\n\n" + beginMark + "\n" + endMark + "\n"

// errMarks occurs when a page does not say where to write.
var errMarks = errors.New("the page must have the lines " + beginMark + " and " + endMark + ", in this order")

// Write writes the plots into the directory beside the page that has its name,
// and what goes with them into the page, between its marks.
func Write(r result.Results, page string) error {
	text, err := os.ReadFile(page)
	if errors.Is(err, fs.ErrNotExist) {
		text, err = []byte(newPage), nil
	}
	if err != nil {
		return err
	}
	dir := strings.TrimSuffix(page, filepath.Ext(page))
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return err
	}
	plots := Plots(r)
	for _, p := range plots {
		if err := os.WriteFile(filepath.Join(dir, p.Name+".svg"), []byte(p.SVG), 0o600); err != nil {
			return err
		}
	}
	written, err := replace(string(text), body(r, plots, filepath.Base(dir)))
	if err != nil {
		return fmt.Errorf("%s: %w", page, err)
	}
	return os.WriteFile(page, []byte(written), 0o600)
}

// replace puts the body between the marks of a page.
func replace(page, body string) (string, error) {
	before, rest, begins := strings.Cut(page, beginMark)
	_, after, ends := strings.Cut(rest, endMark)
	if !begins || !ends {
		return "", errMarks
	}
	return before + beginMark + "\n\n" + body + "\n" + endMark + after, nil
}

// body is what is generated.
func body(r result.Results, plots []Plot, dir string) string {
	var b strings.Builder
	if r.Meta.Quick {
		b.WriteString("These are toy sizes: they say nothing of speed.\n\n")
	}
	fmt.Fprintf(&b, "`%s` at commit `%s`, %s, with %s on Linux %s, %d CPUs (%s).\n\n",
		r.Meta.Command, r.Meta.Commit, r.Meta.Began.Format("2006-01-02"), r.Meta.GoVersion, r.Meta.Kernel, r.Meta.CPUs, r.Meta.CPUModel)
	b.WriteString(Table(r))
	for _, p := range plots {
		fmt.Fprintf(&b, "\n![%s](%s/%s.svg)\n", p.Title, dir, p.Name)
	}
	b.WriteString("\n### All figures\n\n")
	b.WriteString(Figures(r))
	return b.String()
}
