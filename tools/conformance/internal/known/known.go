// Package known owns the lists of the cases that the controller is known not to pass, and
// compares the results of a run with them.
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

// Outcome is the known outcome of a case.
type Outcome string

const (
	// Fails is for a case that fails every time.
	Fails Outcome = "fails"
	// Unsteady is for a case that fails, but whose failure the suite sometimes misses.
	Unsteady Outcome = "unsteady"
	// Races is for a case that a correct server may fail, depending on timing. It has to
	// pass in one of several tries.
	Races Outcome = "races"
)

// Reference is the outcome of a case with plain net/http.
type Reference string

const (
	// Same means that net/http has the same outcome.
	Same Reference = "same"
	// SamePlaintext means that net/http has the same outcome in plaintext, and passes
	// with TLS.
	SamePlaintext Reference = "same-in-plaintext"
	// None means that the case does not depend on net/http.
	None Reference = "-"
)

// Case is an entry of a list.
type Case struct {
	// ID may be a pattern: * matches one part between slashes, ** any number.
	ID        string
	Outcome   Outcome
	Reference Reference
	// Why is the reason.
	Why string
}

// Matches reports whether c applies to the case with this id.
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

// Read reads a list. Each line has a case, its outcome, its reference and the reason,
// separated by two or more spaces; empty lines and those that begin with # are ignored.
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
		return Case{}, errors.New("want a case, its outcome, its reference, and the reason")
	}
	c := Case{ID: f[0], Outcome: Outcome(f[1]), Reference: Reference(f[2]), Why: f[3]}
	if !slices.Contains([]Outcome{Fails, Unsteady, Races}, c.Outcome) {
		return Case{}, fmt.Errorf("%s: unknown outcome: %q", c.ID, c.Outcome)
	}
	if !slices.Contains([]Reference{Same, SamePlaintext, None}, c.Reference) {
		return Case{}, fmt.Errorf("%s: unknown reference: %q", c.ID, c.Reference)
	}
	return c, nil
}

// OfReference returns the entries that apply to net/http as well.
func OfReference(all []Case, tls bool) []Case {
	return slices.DeleteFunc(slices.Clone(all), func(c Case) bool {
		return c.Reference == None || tls && c.Reference == SamePlaintext
	})
}

// Verdict is the comparison of a run with the list.
type Verdict struct {
	Cases, Passed, Known int
	// Unexpected describes each result that differs from the list.
	Unexpected []string
	// Raced are failed cases that may fail, if they pass when they are retried.
	Raced []string
}

// Judge compares the results, true for each case that passed, with the list, whose cases
// must not be patterns. A case of the list that has no result, or passed although it
// should always fail, is as unexpected as a failure that is not on the list.
func Judge(results map[string]bool, list []Case) Verdict {
	v := Verdict{Cases: len(results)}
	unlisted := maps.Clone(results)
	for _, c := range list {
		passed, ran := results[c.ID]
		delete(unlisted, c.ID)
		switch {
		case !ran:
			v.Unexpected = append(v.Unexpected, c.ID+" is on the list, but was not run")
		case passed && c.Outcome == Fails:
			v.Unexpected = append(v.Unexpected, c.ID+" passed: remove it from the list")
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
