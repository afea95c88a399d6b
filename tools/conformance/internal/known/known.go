// Package known owns the lists of the cases that the controller is known not to pass,
// and what follows from them for the results of a run.
package known

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"maps"
	"regexp"
	"slices"
	"strings"
)

// Outcome is how a case may be known to end.
type Outcome string

const (
	// Fails is for a case that fails every time.
	Fails Outcome = "fails"
	// Unsteady is for a case that fails, which its suite fails to notice at times.
	Unsteady Outcome = "unsteady"
	// Races is for a case that a correct server may fail, depending on what is first.
	// It has to pass when it is tried again.
	Races Outcome = "races"
)

// Reference is how plain net/http ends a case.
type Reference string

const (
	// Same is that net/http ends it in the same way.
	Same Reference = "same"
	// SamePlaintext is that it does so in plaintext, and passes with TLS.
	SamePlaintext Reference = "same-in-plaintext"
	// None is that the case is not about what net/http does.
	None Reference = "-"
)

// Case is one line of the list.
type Case struct {
	// ID may be a pattern: * stands for one part between slashes, ** for any number.
	ID        string
	Outcome   Outcome
	Reference Reference
	// Why is the justification.
	Why string
}

// Matches reports whether c is about the case with this id.
func (c Case) Matches(id string) bool {
	return matches(strings.Split(c.ID, "/"), strings.Split(id, "/"))
}

func matches(pattern, id []string) bool {
	switch {
	case len(pattern) == 0:
		return len(id) == 0
	case pattern[0] == "**":
		return matches(pattern[1:], id) || len(id) > 0 && matches(pattern, id[1:])
	default:
		return len(id) > 0 && (pattern[0] == "*" || pattern[0] == id[0]) && matches(pattern[1:], id[1:])
	}
}

// column separates the columns of a list; cases have single spaces in their names.
var column = regexp.MustCompile(`\t+| {2,}`)

// Read reads a list. A line is a case, its outcome, its reference and why, separated by
// two spaces or more; lines that are empty or begin with # are comments.
func Read(r io.Reader) ([]Case, error) {
	var all []Case
	lines := bufio.NewScanner(r)
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSpace(lines.Text())
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		c, err := parse(line)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
		if slices.ContainsFunc(all, func(k Case) bool { return k.ID == c.ID }) {
			return nil, fmt.Errorf("line %d: %s is listed twice", n, c.ID)
		}
		all = append(all, c)
	}
	return all, lines.Err()
}

func parse(line string) (Case, error) {
	f := column.Split(line, 4)
	if len(f) < 4 {
		return Case{}, errors.New("want a case, its outcome, its reference, and why")
	}
	c := Case{ID: f[0], Outcome: Outcome(f[1]), Reference: Reference(f[2]), Why: f[3]}
	if !slices.Contains([]Outcome{Fails, Unsteady, Races}, c.Outcome) {
		return Case{}, fmt.Errorf("%s: no such outcome: %q", c.ID, c.Outcome)
	}
	if !slices.Contains([]Reference{Same, SamePlaintext, None}, c.Reference) {
		return Case{}, fmt.Errorf("%s: no such reference: %q", c.ID, c.Reference)
	}
	return c, nil
}

// OfReference returns what of the list is true of net/http as well.
func OfReference(all []Case, tls bool) []Case {
	return slices.DeleteFunc(slices.Clone(all), func(c Case) bool {
		return c.Reference == None || tls && c.Reference == SamePlaintext
	})
}

// Verdict is a run, compared with the list.
type Verdict struct {
	Cases, Passed, Known int
	// Unexpected says, for each result that the list does not have, what it is.
	Unexpected []string
	// Raced are the cases that failed and may, if they pass when they are tried again.
	Raced []string
}

// Judge compares the results, true for each case that passed, with the list, whose
// cases must not be patterns. A case of
// the list that has no result, or passed although it always fails, is as unexpected as
// a failure that is not in the list.
func Judge(results map[string]bool, list []Case) Verdict {
	v := Verdict{Cases: len(results)}
	unlisted := maps.Clone(results)
	for _, c := range list {
		passed, ran := results[c.ID]
		delete(unlisted, c.ID)
		switch {
		case !ran:
			v.Unexpected = append(v.Unexpected, c.ID+" is listed as known, and there is no such case")
		case passed && c.Outcome == Fails:
			v.Unexpected = append(v.Unexpected, c.ID+" passed: take it off the list")
		case passed:
			v.Passed++
		default:
			v.Known++
			if c.Outcome == Races {
				v.Raced = append(v.Raced, c.ID)
			}
		}
	}
	for id, passed := range unlisted {
		if passed {
			v.Passed++
			continue
		}
		v.Unexpected = append(v.Unexpected, id+" failed")
	}
	slices.Sort(v.Unexpected)
	return v
}
