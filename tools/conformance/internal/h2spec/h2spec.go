// Package h2spec owns runs of h2spec, which tests HTTP/2 servers frame by frame.
package h2spec

import (
	"context"
	"encoding/xml"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Tool is the program.
type Tool struct {
	Path string
	// Dir is the directory for reports, which are overwritten.
	Dir string
}

// Run tests the server at addr, with only the given cases if there are any, and returns
// for each case whether it passed.
func (t Tool) Run(ctx context.Context, addr string, tls bool, cases ...string) (map[string]bool, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	report := filepath.Join(t.Dir, "h2spec.xml")
	if err := os.RemoveAll(report); err != nil {
		return nil, err
	}
	args := []string{"--host", host, "--port", port, "--junit-report", report}
	if tls {
		args = append(args, "--tls", "--insecure")
	}
	// The exit status is 1 when a case fails; the report has the details.
	output, failed := exec.CommandContext(ctx, t.Path, append(args, cases...)...).CombinedOutput() //nolint:gosec // built from the pinned source
	if ctx.Err() != nil {
		return nil, fmt.Errorf("h2spec: %w", context.Cause(ctx))
	}
	f, err := os.Open(report)
	if err != nil {
		return nil, fmt.Errorf("h2spec wrote no report (%w): %w: %s", failed, err, output)
	}
	defer func() { _ = f.Close() }() // opened for reading
	return parse(xml.NewDecoder(f))
}

// report is the relevant part of a JUnit report.
type report struct {
	Suites []struct {
		// Package is the section.
		Package string `xml:"package,attr"`
		Cases   []struct {
			Failure *struct{} `xml:"failure"`
			Error   *struct{} `xml:"error"`
			Skipped *struct{} `xml:"skipped"`
		} `xml:"testcase"`
	} `xml:"testsuite"`
}

// parse returns for each case whether it passed. The name of a case is its section and
// its number in it. A skipped case has not passed.
func parse(d *xml.Decoder) (map[string]bool, error) {
	d.Strict = false // failure messages are not escaped
	var r report
	if err := d.Decode(&r); err != nil {
		return nil, fmt.Errorf("report of h2spec: %w", err)
	}
	results := map[string]bool{}
	for _, s := range r.Suites {
		for i, c := range s.Cases {
			results[fmt.Sprintf("%s/%d", s.Package, i+1)] = c.Failure == nil && c.Error == nil && c.Skipped == nil
		}
	}
	return results, nil
}

// PassesWithin reports whether a case passes in one of this many tries.
func (t Tool) PassesWithin(ctx context.Context, tries int, addr string, tls bool, id string) (bool, error) {
	for range tries {
		results, err := t.Run(ctx, addr, tls, id)
		if err != nil {
			return false, err
		}
		if len(results) != 1 {
			return false, fmt.Errorf("h2spec ran %d cases for %s", len(results), id)
		}
		// When it is run alone, it has number 1 in its section.
		if results[id[:strings.LastIndex(id, "/")]+"/1"] {
			return true, nil
		}
	}
	return false, nil
}
