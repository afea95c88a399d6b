//go:build unix

package cli

import (
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// session is one command of a page, and the output that the page shows for it.
type session struct {
	line    int
	command string
	shown   []string
}

// sessions returns the commands of a page's console blocks in order, and each sh block as
// one command without output.
func sessions(page string) (all []session) {
	inside, script := false, false
	for i, line := range strings.Split(page, "\n") {
		command, begins := strings.CutPrefix(line, "$ ")
		switch {
		case strings.HasPrefix(line, "```"):
			inside, script = line == "```console", line == "```sh"
			if script {
				all = append(all, session{line: i + 2})
			}
		case inside && begins:
			all = append(all, session{line: i + 1, command: command})
		case script || inside && all[len(all)-1].incomplete():
			all[len(all)-1].command += "\n" + line
		case inside:
			all[len(all)-1].shown = append(all[len(all)-1].shown, line)
		}
	}
	return all
}

// incomplete reports whether the command continues on the next line, after a backslash or
// within quotes.
func (s session) incomplete() bool {
	return len(s.shown) == 0 && (strings.HasSuffix(s.command, "\\") || strings.Count(s.command, "'")%2 == 1)
}

// volatile matches output that differs between runs: times, ids, loads, cursors.
var volatile = []struct {
	pattern *regexp.Regexp
	to      string
}{
	{regexp.MustCompile(`\d{4}-\d\d-\d\dT[0-9:.]+Z`), "TIME"},
	{regexp.MustCompile(`\b(in )?\d+[smhd]\b( ago)?|\bnow\b`), "AGE"},
	{regexp.MustCompile(`\bctl-[0-9a-f]{16}\b`), "CTL-ID"},
	{regexp.MustCompile(`\breg-[a-z0-9]{26}\b`), "REG-ID"},
	{regexp.MustCompile(`\btok-[a-z0-9]{16}\b`), "TOK-ID"},
	{regexp.MustCompile(`--cursor \S+`), "--cursor CURSOR"},
	{regexp.MustCompile(`\d+(\.\d+)?%`), "LOAD"},
	{regexp.MustCompile(runtime.GOOS + "/" + runtime.GOARCH), "linux/amd64"},
	{regexp.MustCompile(`127\.0\.0\.1:\d+`), "localhost:8080"},
	{regexp.MustCompile(`  +`), "  "}, // column widths depend on the content
}

func normalized(lines []string) []string {
	out := make([]string, 0, len(lines))
	for _, line := range lines {
		for _, v := range volatile {
			line = v.pattern.ReplaceAllString(line, v.to)
		}
		out = append(out, strings.TrimRight(line, " "))
	}
	return out
}

// typing matches the input in a session: the answer to a confirmation, and Ctrl-C.
var typing = regexp.MustCompile(`(\[y/N\]) (\w+)$|^(\^C)$`)

// play runs a command in a terminal, and types the input that the page shows. Before
// Ctrl-C it calls meanwhile.
func (s session) play(t *testing.T, environ []string, meanwhile func()) []string {
	t.Helper()
	shell := open(t, 320, environ, "bash", "-c", "cd; "+s.command)
	for _, line := range s.shown {
		typed := typing.FindStringSubmatch(line)
		switch {
		case typed == nil:
		case typed[1] != "":
			shell.sees(typed[1])
			shell.types(typed[2] + "\r")
		default:
			shell.sees("press Ctrl-C to stop.")
			meanwhile()
			shell.sees("SUCCEEDED")
			shell.types(ctrlC)
		}
	}
	<-shell.closed
	return shell.lines()
}

// Every console block of docs/migctl.md is accurate: run in order against a controller with
// two VMs, each command prints what the page shows. -update rewrites the page.
func TestManual(t *testing.T) {
	t.Parallel()
	path := filepath.Join("..", "..", "docs", "migctl.md")
	content, err := os.ReadFile(path)
	require.NoError(t, err)
	address := controller(t)
	simulate(t, address)
	home := t.TempDir()
	environ := []string{addressEnv + "=" + address, "HOME=" + home, "NO_COLOR=1"}
	meanwhile := func() {
		require.Zero(t, migctl(t, 100, address, "send", "sim-vm-0001", "set_log_level", "--param", "level=info").ends())
	}
	all := sessions(string(content))
	require.NotEmpty(t, all)
	actual := strings.NewReplacer("http://localhost:8080", address)
	onPage := strings.NewReplacer(address, "http://localhost:8080", home, "/home/me")
	page := strings.Split(string(content), "\n")
	for i, s := range all {
		s.command = actual.Replace(s.command)
		got := s.play(t, environ, meanwhile)
		for j := range got {
			got[j] = onPage.Replace(got[j])
		}
		if *update {
			all[i].shown = got
			continue
		}
		require.Equal(t, strings.Join(normalized(s.shown), "\n"), strings.Join(normalized(got), "\n"), "docs/migctl.md:%d: %s", s.line, s.command)
	}
	if *update {
		old := sessions(string(content))
		for i, s := range slices.Backward(all) {
			from := s.line + strings.Count(s.command, "\n")
			page = slices.Replace(page, from, from+len(old[i].shown), s.shown...)
		}
		require.NoError(t, os.WriteFile(path, []byte(strings.Join(page, "\n")), 0o600))
	}
}

// simulate runs the two VMs of the page, with ideal agents and without jobs, and waits
// until they are registered.
func simulate(t *testing.T, address string) {
	t.Helper()
	background(t, "migletsim", "", "--controller", address, "--agent", "ideal", "--vms", "2", "--pool", "builders", "--job-every", "0", "--register-time", "10ms")
	s := migctl(t, 100, address, "watch")
	s.until("both VMs registered", func() bool {
		list := migctl(t, 100, address, "vms")
		return list.ends() == 0 && strings.Count(list.text(), "idle  ") == 2 && strings.Count(list.text(), " registered") == 2
	})
	s.types(ctrlC)
	require.Zero(t, s.ends())
}
