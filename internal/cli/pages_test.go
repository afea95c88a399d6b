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

// readPage returns a file of the repository.
func readPage(t *testing.T, path ...string) string {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(append([]string{"..", ".."}, path...)...))
	require.NoError(t, err)
	return string(content)
}

// volatileNumbers matches numbers and times that differ between runs, in JSON and in file
// names.
var volatileNumbers = []struct {
	pattern *regexp.Regexp
	to      string
}{
	{regexp.MustCompile(`\d{8}T\d{6}\.\d{9}Z`), "TIME"},
	{regexp.MustCompile(`": \d+\.\d+`), `": LOAD`},
	{regexp.MustCompile(`"\d{9,}"`), `"NUMBER"`}, // bytes, and seconds
}

// simulatedStates matches the state of a simulated VM, which varies.
var simulatedStates = regexp.MustCompile(`(?m)^(sim-vm-\d+  -  )\w+  [a-z_]+(, spent)?  \w+( \(.*?\))?  \S+  `)

// matchesPage reports whether the output is what a page shows, where a line with … stands
// for any lines.
func matchesPage(shown, got []string) bool {
	normalize := func(lines []string) string {
		text := strings.Trim(strings.Join(normalized(lines), "\n"), "\n")
		for _, l := range volatileNumbers {
			text = l.pattern.ReplaceAllString(text, l.to)
		}
		return simulatedStates.ReplaceAllString(text, "${1}MOOD  ")
	}
	pattern := regexp.MustCompile(`(?m)^ *…$`).ReplaceAllString(regexp.QuoteMeta(normalize(shown)), `(?s:.*?)`)
	return regexp.MustCompile(`^` + pattern + `$`).MatchString(normalize(got))
}

// The quick start of the README is accurate: against the controller that make run starts,
// its commands print what the README shows.
func TestQuickStart(t *testing.T) {
	t.Parallel()
	run := regexp.MustCompile(`(?m)^run: .*\n\t@exec bin/controller (.*)$`).FindStringSubmatch(readPage(t, "Makefile"))
	require.NotNil(t, run, "make run runs the controller")
	address := controller(t, strings.Fields(run[1])...)
	registered := regexp.MustCompile(`(?m)^sim-vm-0001 .* registered `)
	require.Eventually(t, func() bool {
		s := migctl(t, 120, address, "vms")
		return s.ends() == exitOK && strings.Count(s.text(), "\n") == 5 && registered.MatchString(s.text())
	}, screenTimeout, 100*time.Millisecond)
	all := sessions(readPage(t, "README.md"))
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
		require.True(t, matchesPage(s.shown, got), "README.md:%d shows\n%s\nbut it is\n%s", s.line, strings.Join(s.shown, "\n"), strings.Join(got, "\n"))
	}
}

// bash is a shell that keeps its variables, functions and jobs.
type bash struct {
	t     *testing.T
	stdin io.Writer
	lines *bufio.Scanner
}

// startBash starts bash in dir.
func startBash(t *testing.T, dir string, environ ...string) *bash {
	t.Helper()
	// The shell must outlive the test's context: the cleanup uses it to kill its jobs.
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

// killed matches the message that bash prints for a killed job.
var killed = regexp.MustCompile(`line \d+: +\d+ (Killed|Terminated)`)

// run runs a command, and returns its output lines.
func (b *bash) run(command string) (out []string) {
	b.t.Helper()
	const marker = "--- done ---"
	_, err := fmt.Fprintf(b.stdin, "%s\necho; echo '%s'\n", command, marker)
	require.NoError(b.t, err)
	for b.lines.Scan() {
		switch line := b.lines.Text(); {
		case line == marker:
			return out
		case !killed.MatchString(line):
			out = append(out, line)
		}
	}
	require.Failf(b.t, "the shell ended", "%s", command)
	return nil
}

// eventually repeats a command until it prints what the page shows, because the state that
// a reader sees takes a moment to appear.
func (b *bash) eventually(what string, s session) {
	b.t.Helper()
	deadline := time.Now().Add(screenTimeout)
	for {
		got := b.run(s.command)
		if len(s.shown) == 0 {
			require.NotContains(b.t, strings.Join(got, "\n"), `"code":`, "%s:%d", what, s.line)
			return
		}
		if matchesPage(s.shown, got) {
			return
		}
		if time.Now().After(deadline) {
			require.Failf(b.t, "the page is not accurate", "%s:%d: %s\nshows\n%s\nbut it is\n%s",
				what, s.line, s.command, strings.Join(s.shown, "\n"), strings.Join(got, "\n"))
		}
		require.NoError(b.t, pause(b.t.Context(), 100*time.Millisecond))
	}
}

// freeAddress returns a free address at host. No other test uses that host, so the port
// stays free.
func freeAddress(t *testing.T, host string) string {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", host+":0")
	if err != nil { // only Linux has more than one loopback address
		l, err = new(net.ListenConfig).Listen(t.Context(), "tcp", "localhost:0")
	}
	require.NoError(t, err)
	require.NoError(t, l.Close())
	return l.Addr().String()
}

// Getting started is accurate: run in order in one shell, its commands print what the page
// shows, across the crash and restart of the controller.
func TestGettingStarted(t *testing.T) {
	t.Parallel()
	content, _, found := strings.Cut(readPage(t, "docs", "getting-started.md"), "## Connect a MIGlet")
	require.True(t, found)
	dir := t.TempDir()
	require.NoError(t, os.Symlink(binaries(t), filepath.Join(dir, "bin")))
	http, grpc := freeAddress(t, "127.83.17.5"), freeAddress(t, "127.83.17.5")
	b := startBash(t, dir, "CONTROLLER_HTTP_ADDR="+http, "CONTROLLER_GRPC_ADDR="+grpc)
	replacer := strings.NewReplacer(
		"localhost:8080", http,
		// The simulated VMs must not start jobs during the test.
		"./bin/migletsim ", "./bin/migletsim --job-every 0 --controller http://"+grpc+" ",
	)
	makefile := readPage(t, "Makefile")
	all := sessions(content)
	require.Greater(t, len(all), 15)
	for _, s := range all {
		if s.command == "make build" {
			for _, line := range s.shown {
				require.Contains(t, makefile, strings.TrimSpace(line))
			}
			continue
		}
		s.command = replacer.Replace(s.command)
		if strings.HasPrefix(s.command, "kill ") {
			s.command += "; wait" // Unlike a reader, the test continues immediately.
		}
		b.eventually("docs/getting-started.md", s)
	}
}
