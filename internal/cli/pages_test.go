//go:build unix

package cli

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// page returns a document of the project.
func page(t *testing.T, path ...string) string {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(append([]string{"..", ".."}, path...)...))
	require.NoError(t, err)
	return string(content)
}

// loads are what differs from one run to the next in the JSON of getting started, and
// in the names of files.
var loads = []struct {
	pattern *regexp.Regexp
	to      string
}{
	{regexp.MustCompile(`\d{8}T\d{6}\.\d{9}Z`), "TIME"},
	{regexp.MustCompile(`": \d+\.\d+`), `": LOAD`},
	{regexp.MustCompile(`"\d{9,}"`), `"NUMBER"`}, // bytes, and seconds
}

// moods are what a simulated VM of the quick start may be doing.
var moods = regexp.MustCompile(`(?m)^(sim-vm-\d+  -  )\w+  [a-z_]+(, spent)?  \w+( \(.*?\))?  \S+  `)

// alike reports whether lines are what a page shows. There, a line with … stands for any
// lines.
func alike(shown, got []string) bool {
	form := func(lines []string) string {
		text := strings.Trim(strings.Join(normalized(lines), "\n"), "\n")
		for _, l := range loads {
			text = l.pattern.ReplaceAllString(text, l.to)
		}
		return moods.ReplaceAllString(text, "${1}MOOD  ")
	}
	pattern := regexp.MustCompile(`(?m)^ *…$`).ReplaceAllString(regexp.QuoteMeta(form(shown)), `(?s:.*?)`)
	return regexp.MustCompile(`^` + pattern + `$`).MatchString(form(got))
}

// The quick start of the README is true: with what make run runs, its commands show what
// the README shows.
func TestQuickStart(t *testing.T) {
	t.Parallel()
	run := regexp.MustCompile(`(?m)^run: .*\n\t@exec bin/controller (.*)$`).FindStringSubmatch(page(t, "Makefile"))
	require.NotNil(t, run, "make run runs the controller")
	address := controller(t, strings.Fields(run[1])...)
	registered := regexp.MustCompile(`(?m)^sim-vm-0001 .* registered `)
	require.Eventually(t, func() bool {
		s := migctl(t, 120, address, "vms")
		return s.ends() == exitOK && strings.Count(s.text(), "\n") == 5 && registered.MatchString(s.text())
	}, patience, 100*time.Millisecond)
	all := sessions(page(t, "README.md"))
	require.Len(t, all, 3)
	home := t.TempDir()
	require.NoError(t, os.Symlink(binaries(t), filepath.Join(home, "bin")))
	environ := []string{addressEnv + "=" + address, "HOME=" + home, "NO_COLOR=1"}
	for _, s := range all {
		s.command = strings.ReplaceAll(s.command, "localhost:8080", strings.TrimPrefix(address, "http://"))
		got := s.play(t, environ, nil)
		if strings.HasPrefix(s.command, "curl ") {
			require.Contains(t, strings.Join(got, ""), `"COMMAND_STATE_SUCCEEDED"`, "README.md:%d", s.line)
			continue
		}
		require.True(t, alike(s.shown, got), "README.md:%d shows\n%s\nbut it is\n%s", s.line, strings.Join(s.shown, "\n"), strings.Join(got, "\n"))
	}
}

// bash is a shell that keeps its variables, functions and jobs.
type bash struct {
	t     *testing.T
	stdin io.Writer
	lines *bufio.Scanner
}

// startBash starts a shell in dir.
func startBash(t *testing.T, dir string, environ ...string) *bash {
	t.Helper()
	// It lives until the cleanup, in which it ends its jobs.
	cmd := exec.CommandContext(context.WithoutCancel(t.Context()), "bash", "--norc", "--noprofile")
	cmd.Dir, cmd.Env = dir, append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir}, environ...)
	stdin, err := cmd.StdinPipe()
	require.NoError(t, err)
	read, write, err := os.Pipe()
	require.NoError(t, err)
	cmd.Stdout, cmd.Stderr = write, write
	require.NoError(t, cmd.Start())
	require.NoError(t, write.Close())
	t.Cleanup(func() {
		_, _ = io.WriteString(stdin, "\nkill $(jobs -p); wait\n")
		_ = stdin.Close()
		_ = cmd.Wait()
		_ = read.Close()
	})
	return &bash{t, stdin, bufio.NewScanner(read)}
}

// killed is what bash reports of a job that was killed.
var killed = regexp.MustCompile(`line \d+: +\d+ (Killed|Terminated)`)

// run runs a command, and returns the lines that it printed.
func (b *bash) run(command string) (out []string) {
	b.t.Helper()
	const mark = "--- done ---"
	_, err := fmt.Fprintf(b.stdin, "%s\necho; echo '%s'\n", command, mark)
	require.NoError(b.t, err)
	for b.lines.Scan() {
		switch line := b.lines.Text(); {
		case line == mark:
			return out
		case !killed.MatchString(line):
			out = append(out, line)
		}
	}
	require.Failf(b.t, "the shell ended", "%s", command)
	return nil
}

// shows runs a command until it shows what the page shows: the programs need a moment
// for what a reader sees at once.
func (b *bash) shows(what string, s session) {
	b.t.Helper()
	deadline := time.Now().Add(patience)
	for {
		got := b.run(s.command)
		if len(s.shown) == 0 {
			require.NotContains(b.t, strings.Join(got, "\n"), `"code":`, "%s:%d", what, s.line)
			return
		}
		if alike(s.shown, got) {
			return
		}
		if time.Now().After(deadline) {
			require.Failf(b.t, "the page is not true", "%s:%d: %s\nshows\n%s\nbut it is\n%s",
				what, s.line, s.command, strings.Join(s.shown, "\n"), strings.Join(got, "\n"))
		}
		require.NoError(b.t, pause(b.t.Context(), 100*time.Millisecond))
	}
}

// quietPort returns a free port at host. Nothing else that these tests run uses that
// host, so it stays free.
func quietPort(t *testing.T, host string) string {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", host+":0")
	if err != nil { // only Linux has more than one loopback address
		l, err = new(net.ListenConfig).Listen(t.Context(), "tcp", "localhost:0")
	}
	require.NoError(t, err)
	require.NoError(t, l.Close())
	return l.Addr().String()
}

// Getting started is true: its commands, run one after the other in one shell, show what
// the page shows, through the crash of the controller and its new start.
func TestGettingStarted(t *testing.T) {
	t.Parallel()
	content, _, found := strings.Cut(page(t, "docs", "getting-started.md"), "## Connect a MIGlet")
	require.True(t, found)
	dir := t.TempDir()
	require.NoError(t, os.Symlink(binaries(t), filepath.Join(dir, "bin")))
	http, grpc := quietPort(t, "127.83.17.5"), quietPort(t, "127.83.17.5")
	b := startBash(t, dir, "CONTROLLER_HTTP_ADDR="+http, "CONTROLLER_GRPC_ADDR="+grpc)
	here := strings.NewReplacer(
		"localhost:8080", http,
		// The VMs of the page take no jobs while it is read.
		"./bin/migletsim ", "./bin/migletsim --job-every 0 --controller http://"+grpc+" ",
	)
	makefile := page(t, "Makefile")
	all := sessions(content)
	require.Greater(t, len(all), 15)
	for _, s := range all {
		if s.command == "make build" {
			for _, line := range s.shown {
				require.Contains(t, makefile, strings.TrimSpace(line))
			}
			continue
		}
		s.command = here.Replace(s.command)
		if strings.HasPrefix(s.command, "kill ") {
			s.command += "; wait" // The next command comes faster than a reader's.
		}
		b.shows("docs/getting-started.md", s)
	}
}
