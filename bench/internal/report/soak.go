package report

import (
	"fmt"
	"strings"
	"time"

	"github.com/mig-controller/mig-controller/bench/internal/soak"
)

// SoakTable returns the trends and totals of a soak as Markdown.
func SoakTable(v soak.Verdict) string {
	var b strings.Builder
	b.WriteString("| After the last kill | First third | Last third | Flat |\n|---|---|---|---|\n")
	for _, t := range v.Trends {
		fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", t.Name, figure(t.First), figure(t.Last), yes(t.Flat()))
	}
	end := v.Samples[len(v.Samples)-1]
	b.WriteString("\n| Total | |\n|---|---|\n")
	for _, row := range []struct {
		name string
		n    int64
	}{
		{"commands done", end.Done},
		{"commands failed", end.Failed},
		{"VMs replaced by new ones", end.Replaced},
		{"connections dropped", end.Dropped},
		{"kills of the controller", int64(len(v.Back))},
	} {
		fmt.Fprintf(&b, "| %s | %s |\n", row.name, figure(float64(row.n)))
	}
	for i, d := range v.Back {
		fmt.Fprintf(&b, "| seconds until 99 %% had reconnected after kill %d | %s |\n", i+1, figure(d.Seconds()))
	}
	if err := v.Err(); err != nil {
		fmt.Fprintf(&b, "\n**%v**\n", err)
	}
	return b.String()
}

func yes(it bool) string {
	if it {
		return "yes"
	}
	return "no"
}

// soakBody returns the generated text about a soak.
func soakBody(v soak.Verdict, memory Plot, dir string) string {
	title := "An hour"
	if v.For != time.Hour {
		title = "A soak of " + v.For.String()
	}
	return fmt.Sprintf("## %s\n\n%s VMs lived for %s. %s%s%s",
		title, figure(float64(v.VMs)), v.For, madeBy(v.Meta), SoakTable(v), memory.image(dir))
}

// soakPlots draws a soak.
func soakPlots(v soak.Verdict) (memory, goroutines Plot) {
	var at, mebibytes, routines []float64
	var lives []int
	for _, s := range v.Samples {
		at, lives = append(at, s.At), append(lives, s.Life)
		mebibytes = append(mebibytes, float64(s.RSS)/(1<<20))
		routines = append(routines, float64(s.Goroutines))
	}
	memory = Plot{
		Name: "soak", Title: "Memory while the fleet lives",
		Says: "The controller's memory. The line breaks where the controller was killed; a flat line means that nothing leaks.",
	}
	memory.SVG = drawCourse(memory.Title, "MiB", at, lives, mebibytes)
	goroutines = Plot{
		Name: "soak-goroutines", Title: "Goroutines while the fleet lives",
		Says: "The controller's goroutines during the same time: a flat line means that none leak.",
	}
	goroutines.SVG = drawCourse(goroutines.Title, "goroutines", at, lives, routines)
	return memory, goroutines
}
