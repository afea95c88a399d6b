package internal_test

import (
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// What "Where does it go" in CONTRIBUTING.md names exists: files, directories, functions and
// tests.
func TestGuideNamesWhatExists(t *testing.T) {
	t.Parallel()
	content, err := os.ReadFile(filepath.Join("..", "CONTRIBUTING.md"))
	require.NoError(t, err)
	_, rest, _ := strings.Cut(string(content), "\n## Where does it go\n")
	guide, _, found := strings.Cut(rest, "\n## ")
	require.True(t, found)
	text, names := namedInGuide(t)
	isWord := regexp.MustCompile(`^[A-Za-z_]+(\.[A-Za-z]+)?$`)
	for _, match := range regexp.MustCompile("`([^`\n]+)`").FindAllStringSubmatch(guide, -1) {
		name := strings.TrimSuffix(match[1], "/")
		_, word, qualified := strings.Cut(name, ".")
		if !qualified {
			word = name
		}
		switch {
		case strings.ContainsAny(name, " <("), strings.Contains(name, "NAME"), strings.HasPrefix(name, "-"), name == "/metrics":
		case names[name], names["internal/"+name]:
		case strings.Contains(name, "/"):
			require.Fail(t, "there is no file "+name)
		case isWord.MatchString(name):
			require.True(t, regexp.MustCompile(`\b`+word+`\b`).MatchString(text), "%s is in no file", name)
		}
	}
}

// namedInGuide returns the text of the code that the guide is about, and the names of all
// files and directories: their paths, and the names of files by themselves.
func namedInGuide(t *testing.T) (string, map[string]bool) {
	t.Helper()
	var text strings.Builder
	names := map[string]bool{}
	err := filepath.WalkDir("..", func(file string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() && file != ".." && (strings.HasPrefix(entry.Name(), ".") || entry.Name() == "node_modules") {
			return filepath.SkipDir
		}
		name := strings.TrimPrefix(filepath.ToSlash(file), "../")
		names[name], names[path.Base(name)] = true, true
		if ext := path.Ext(name); ext != ".go" && ext != ".py" && ext != ".proto" {
			return nil
		}
		content, err := os.ReadFile(file)
		text.Write(content)
		return err
	})
	require.NoError(t, err)
	return text.String(), names
}
