package report

import (
	"os"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/bench/internal/measure"
	"github.com/mig-controller/mig-controller/bench/internal/result"
)

var image = regexp.MustCompile(`!\[[^]]+\]\(([^)]+)\)`)

// The published page has a verdict on every target, figures of every measure, an hour's
// soak, and its plots.
func TestPublishedPageIsWhole(t *testing.T) {
	t.Parallel()
	const dir = "../../../docs"
	text, err := os.ReadFile(filepath.Join(dir, "performance.md"))
	require.NoError(t, err)
	page := string(text)
	require.NotContains(t, page, "toy sizes")
	require.NotContains(t, page, string(result.NotMeasured))
	for _, target := range result.Targets {
		require.Contains(t, page, "| "+target.Name+" | "+target.Against+" | "+bound(target)+" |")
	}
	for _, name := range measure.Names() {
		require.Contains(t, page, "\n| "+name+" | ")
	}
	require.Contains(t, page, "lived for 1h0m0s")
	images := image.FindAllStringSubmatch(page, -1)
	for _, found := range images {
		require.FileExists(t, filepath.Join(dir, found[1]))
	}
	plots, err := filepath.Glob(filepath.Join(dir, "performance", "*.svg"))
	require.NoError(t, err)
	require.Len(t, images, len(plots))
}
