package report

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/mig-controller/mig-controller/bench/internal/result"
	"github.com/mig-controller/mig-controller/bench/internal/soak"
)

// part is a generated part of a page, between two marks.
type part struct{ begin, end string }

var (
	resultsPart    = partOf("bench report")
	soakPart       = partOf("bench report -soak")
	goroutinesPart = partOf("bench report -soak, appendix")
	figuresPart    = partOf("bench report, appendix")
)

func partOf(name string) part {
	return part{"<!-- " + name + ": generated from here -->", "<!-- " + name + ": to here -->"}
}

// newPage is the initial page.
var newPage = "# Performance\n\n" + resultsPart.empty() + "\n" + soakPart.empty() +
	"\n## Appendix\n\n" + goroutinesPart.empty() + "\n" + figuresPart.empty()

func (p part) empty() string { return p.begin + "\n" + p.end + "\n" }

// fill replaces the text between the marks of a page.
func (p part) fill(page, body string) (string, error) {
	before, rest, begins := strings.Cut(page, p.begin)
	_, after, ends := strings.Cut(rest, p.end)
	if !begins || !ends {
		return "", fmt.Errorf("the page must have the lines %s and %s, in this order", p.begin, p.end)
	}
	return before + p.begin + "\n\n" + body + "\n" + p.end + after, nil
}

// Write writes the plots into the directory next to the page that has its name, and the
// generated text into the page, between its marks: the results, and all figures in the
// appendix.
func Write(r result.Results, page string) error {
	plots := Plots(r)
	return write(page, plots, func(text, dir string) (string, error) {
		text, err := resultsPart.fill(text, body(r, plots, dir))
		if err != nil {
			return "", err
		}
		return figuresPart.fill(text, "### All figures\n\n"+Figures(r))
	})
}

// WriteSoak is Write for a soak.
func WriteSoak(v soak.Verdict, page string) error {
	memory, goroutines := soakPlots(v)
	return write(page, []Plot{memory, goroutines}, func(text, dir string) (string, error) {
		text, err := soakPart.fill(text, soakBody(v, memory, dir))
		if err != nil {
			return "", err
		}
		return goroutinesPart.fill(text, "### Goroutines\n"+goroutines.image(dir))
	})
}

// write writes plots, and the page as changed by fill.
func write(page string, plots []Plot, fill func(text, dir string) (string, error)) error {
	text, err := os.ReadFile(page)
	if errors.Is(err, fs.ErrNotExist) {
		text, err = []byte(newPage), nil
	}
	if err != nil {
		return err
	}
	dir := strings.TrimSuffix(page, filepath.Ext(page))
	written, err := fill(string(text), filepath.Base(dir))
	if err != nil {
		return fmt.Errorf("%s: %w", page, err)
	}
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return err
	}
	for _, p := range plots {
		if err := os.WriteFile(filepath.Join(dir, p.Name+".svg"), []byte(p.SVG), 0o600); err != nil {
			return err
		}
	}
	return os.WriteFile(page, []byte(written), 0o600)
}

// body returns the generated text.
func body(r result.Results, plots []Plot, dir string) string {
	var b strings.Builder
	if r.Meta.Quick {
		b.WriteString("These are toy sizes: they say nothing about speed.\n\n")
	}
	b.WriteString(madeBy(r.Meta))
	b.WriteString(Table(r))
	for _, p := range plots {
		b.WriteString(p.image(dir))
	}
	return b.String()
}

// madeBy returns the paragraph about the origin of the figures.
func madeBy(m result.Meta) string {
	return "`" + m.Command + "` at commit `" + m.Commit + "`, " + fmt.Sprintf("%s, with %s on Linux %s, %d CPUs (%s).\n\n",
		m.Began.Format("2006-01-02"), m.GoVersion, m.Kernel, m.CPUs, m.CPUModel)
}

func (p Plot) image(dir string) string {
	return fmt.Sprintf("\n%s\n\n![%s](%s/%s.svg)\n", p.Says, p.Title, dir, p.Name)
}
