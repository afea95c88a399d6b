// Package report owns how results are presented: as Markdown and as plots.
package report

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/mig-controller/mig-controller/bench/internal/result"
)

// Table returns the targets and the results for them as Markdown.
func Table(r result.Results) string {
	var b strings.Builder
	b.WriteString("| measure | against | must | measured | min–max | verdict |\n|---|---|---|---|---|---|\n")
	for _, t := range result.Targets {
		s := t.Of(r)
		verdict := t.Judge(s)
		if verdict == result.NotMeasured {
			fmt.Fprintf(&b, "| %s | %s | %s | – | – | %s |\n", t.Name, t.Against, bound(t), verdict)
			continue
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s%s | %s–%s | %s |\n", t.Name, t.Against, bound(t),
			figure(s.Median), t.Unit, figure(s.Min), figure(s.Max), verdict)
	}
	return b.String()
}

func bound(t result.Target) string {
	sign := "≥"
	if t.AtMost {
		sign = "≤"
	}
	return fmt.Sprintf("%s %s%s", sign, figure(t.Must), t.Unit)
}

// Figures returns every value of every measure as Markdown.
func Figures(r result.Results) string {
	var b strings.Builder
	b.WriteString("| measure | size | figure | server | median | min–max | runs |\n|---|---|---|---|---|---|---|\n")
	seen := map[string]bool{}
	for _, sample := range r.Samples {
		for _, name := range names(sample) {
			size := "–"
			if sample.At > 0 {
				size = thousands(strconv.Itoa(sample.At))
			}
			head := fmt.Sprintf("| %s | %s | %s | %s |", sample.Measure, size, name, sample.Server)
			if seen[head] {
				continue
			}
			seen[head] = true
			values := r.Of(sample.Measure, sample.Server, name, sample.At)
			s := result.SpreadOf(values)
			fmt.Fprintf(&b, "%s %s | %s–%s | %d |\n", head, figure(s.Median), figure(s.Min), figure(s.Max), len(values))
		}
	}
	return b.String()
}

// figure formats a number with three significant digits.
func figure(v float64) string {
	if v == 0 || math.IsNaN(v) || math.IsInf(v, 0) {
		return strconv.FormatFloat(v, 'g', -1, 64)
	}
	digits := max(0, 2-int(math.Floor(math.Log10(math.Abs(v)))))
	text := strconv.FormatFloat(v, 'f', digits, 64)
	if whole, part, ok := strings.Cut(text, "."); ok {
		if part = strings.TrimRight(part, "0"); part == "" {
			return whole
		}
		return whole + "." + part
	}
	return thousands(text)
}

// thousands adds commas to a non-negative integer.
func thousands(digits string) string {
	for i := len(digits) - 3; i > 0; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	return digits
}
