package internal_test

import (
	"errors"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"unicode"

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
	words, names := inTree(t)
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
			require.True(t, words[word], "%s is in no file", name)
		}
	}
}

// inTree returns the words in the code of this repository, and the names of all files and
// directories: their paths, and their last elements.
func inTree(t *testing.T) (words, names map[string]bool) {
	t.Helper()
	words, names = map[string]bool{}, map[string]bool{}
	err := filepath.WalkDir("..", func(file string, entry fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist): // another test's file, which it has removed
			return nil
		case err != nil:
			return err
		case entry.IsDir() && file != ".." && (strings.HasPrefix(entry.Name(), ".") || entry.Name() == "node_modules"):
			return filepath.SkipDir
		}
		name := strings.TrimPrefix(filepath.ToSlash(file), "../")
		names[name], names[path.Base(name)] = true, true
		if ext := path.Ext(name); ext != ".go" && ext != ".py" && ext != ".proto" {
			return nil
		}
		content, err := os.ReadFile(file)
		for word := range strings.FieldsFuncSeq(string(content), notInWord) {
			words[word] = true
		}
		return err
	})
	require.NoError(t, err)
	return words, names
}

func notInWord(r rune) bool { return r != '_' && !unicode.IsLetter(r) && !unicode.IsDigit(r) }
