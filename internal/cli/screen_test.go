//go:build unix

package cli

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/charmbracelet/x/vt"
	"github.com/creack/pty"
	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/internal/app"
)

// screenTimeout limits the wait for an expected screen.
const screenTimeout = 30 * time.Second

// programs are the entry points of the binaries that the tests build. Referencing them
// makes go test rerun the tests, instead of using cached results, when their code changes.
var programs = []any{app.Main, Main}

// buildOnce builds the binaries into one directory.
var buildOnce = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "migctl")
	if err != nil {
		return "", err
	}
	binDir = dir
	build := exec.CommandContext(context.Background(), "go", "build", "-buildvcs=false", "-o", dir, "../../cmd/migctl", "../../cmd/controller", "../../cmd/migletsim")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build: %w\n%s", err, out)
	}
	return dir, nil
})

func binaries(t *testing.T) string {
	t.Helper()
	require.NotEmpty(t, programs)
	dir, err := buildOnce()
	require.NoError(t, err)
	return dir
}

// controller starts a controller on a free port, and returns its address.
func controller(t *testing.T, flags ...string) string {
	t.Helper()
	args := append([]string{"--data-dir", t.TempDir(), "--http-addr", "localhost:0", "--grpc-addr", "localhost:0"}, flags...)
	return "http://" + background(t, "controller", "http addr", args...)
}

// background runs a program until the test ends, and returns the last word of the first
// output line that contains mark.
func background(t *testing.T, name, mark string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), filepath.Join(binaries(t), name), args...)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = screenTimeout
	read, write, err := os.Pipe()
	require.NoError(t, err)
	cmd.Stdout, cmd.Stderr = write, write
	require.NoError(t, cmd.Start())
	require.NoError(t, write.Close())
	found := make(chan string, 1)
	drained := make(chan struct{})
	go func() {
		defer close(drained)
		lines := bufio.NewScanner(read)
		for lines.Scan() {
			if words := strings.Fields(lines.Text()); len(words) > 0 && strings.Contains(lines.Text(), mark) && len(found) == 0 {
				found <- words[len(words)-1]
			}
		}
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
		<-drained
		_ = read.Close()
	})
	select {
	case word := <-found:
		return word
	case <-time.After(screenTimeout):
		require.Fail(t, name+" does not say "+mark)
		return ""
	}
}

// screen is an emulated terminal that runs a program.
type screen struct {
	t   *testing.T
	tty *os.File
	cmd *exec.Cmd
	// lock guards term.
	lock sync.Mutex
	term *vt.Emulator
	// hidden is set while the cursor is hidden.
	hidden bool
	// changed receives a value after output.
	changed chan struct{}
	closed  chan struct{}
}

// open starts a program in a terminal of this width, with a login environment plus environ.
func open(t *testing.T, width int, environ []string, name string, args ...string) *screen {
	t.Helper()
	const height = 50
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Env = append([]string{
		"PATH=" + binaries(t) + ":" + os.Getenv("PATH"), "HOME=" + t.TempDir(), "TERM=xterm-256color", "LANG=C.UTF-8",
	}, environ...)
	tty, err := pty.StartWithSize(cmd, &pty.Winsize{Rows: height, Cols: uint16(width)})
	require.NoError(t, err)
	s := &screen{
		t: t, term: vt.NewEmulator(width, height), tty: tty, cmd: cmd,
		changed: make(chan struct{}, 1), closed: make(chan struct{}),
	}
	s.term.SetCallbacks(vt.Callbacks{CursorVisibility: func(visible bool) { s.hidden = !visible }})
	go s.show()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		<-s.closed
		_ = tty.Close()
	})
	return s
}

// migctl starts migctl in a terminal.
func migctl(t *testing.T, width int, address string, args ...string) *screen {
	t.Helper()
	return open(t, width, []string{addressEnv + "=" + address}, filepath.Join(binaries(t), "migctl"), args...)
}

// show copies the program's output to the screen until the program ends.
func (s *screen) show() {
	defer close(s.closed)
	buffer := make([]byte, 4096)
	for {
		n, err := s.tty.Read(buffer)
		s.lock.Lock()
		_, _ = s.term.Write(buffer[:n])
		s.lock.Unlock()
		select {
		case s.changed <- struct{}{}:
		default:
		}
		if err != nil {
			return
		}
	}
}

// lines returns the rows of the screen without trailing empty rows.
func (s *screen) lines() []string {
	s.lock.Lock()
	defer s.lock.Unlock()
	var rows []string
	for y := range s.term.Height() {
		var row strings.Builder
		for x := range s.term.Width() {
			if c := s.term.CellAt(x, y); c != nil && c.Content != "" {
				row.WriteString(c.Content)
			} else {
				row.WriteByte(' ')
			}
		}
		rows = append(rows, strings.TrimRight(row.String(), " "))
	}
	for len(rows) > 0 && rows[len(rows)-1] == "" {
		rows = rows[:len(rows)-1]
	}
	return rows
}

func (s *screen) text() string { return strings.Join(s.lines(), "\n") }

// until waits until seen returns true. what describes the condition.
func (s *screen) until(what string, seen func() bool) {
	s.t.Helper()
	deadline := time.After(screenTimeout)
	for !seen() {
		select {
		case <-s.changed:
		case <-s.closed:
			if !seen() {
				require.Failf(s.t, "the program ended", "without %s:\n%s", what, s.text())
			}
			return
		case <-deadline:
			require.Failf(s.t, "the screen", "does not show %s:\n%s", what, s.text())
		}
	}
}

// sees waits until the screen contains the text.
func (s *screen) sees(text string) {
	s.t.Helper()
	s.until(text, func() bool { return strings.Contains(s.text(), text) })
}

func (s *screen) types(keys string) {
	s.t.Helper()
	_, err := s.tty.WriteString(keys)
	require.NoError(s.t, err)
}

// resize changes the width of the terminal.
func (s *screen) resize(width int) {
	s.t.Helper()
	s.lock.Lock()
	defer s.lock.Unlock()
	s.term.Resize(width, s.term.Height())
	require.NoError(s.t, pty.Setsize(s.tty, &pty.Winsize{Rows: uint16(s.term.Height()), Cols: uint16(width)}))
}

// ends waits for the program to end, and returns its exit status. It requires that the
// program restored the terminal: a visible cursor at the start of a line, and no colour.
func (s *screen) ends() int {
	s.t.Helper()
	select {
	case <-s.closed:
	case <-time.After(screenTimeout):
		require.Failf(s.t, "the program", "does not end:\n%s", s.text())
	}
	err := s.cmd.Wait()
	if err != nil {
		failed := new(exec.ExitError)
		require.ErrorAs(s.t, err, &failed)
	}
	require.False(s.t, s.hidden, "the cursor is visible")
	require.False(s.t, s.term.IsAltScreen(), "the alternate screen is off")
	require.Zero(s.t, s.term.CursorPosition().X, "the cursor is at the start of a line:\n%s", s.text())
	at := s.term.CursorPosition()
	_, _ = s.term.WriteString("x")
	style := s.term.CellAt(at.X, at.Y).Style
	require.True(s.t, style.IsZero(), "the colour is reset")
	_, _ = s.term.WriteString("\b \b")
	return s.cmd.ProcessState.ExitCode()
}

// colourOf returns the ANSI colour index of the first letter of the text, or -1 for the
// default colour.
func (s *screen) colourOf(text string) int {
	s.t.Helper()
	lines := s.lines()
	s.lock.Lock()
	defer s.lock.Unlock()
	for y, line := range lines {
		before, _, found := strings.Cut(line, text)
		if !found {
			continue
		}
		colour := s.term.CellAt(len([]rune(before)), y).Style.Fg
		if colour == nil {
			return -1
		}
		r, g, b, _ := colour.RGBA()
		for index := range 8 {
			wr, wg, wb, _ := s.term.IndexedColor(index).RGBA()
			if r == wr && g == wg && b == wb {
				return index
			}
		}
	}
	require.Failf(s.t, "the screen", "has no %s", text)
	return -1
}
