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

// patience is how long a screen may take to show what is expected.
const patience = 30 * time.Second

// programs are what is built and run here. Nobody calls them: that the tests hold
// them makes the go command run them again when anything in them has changed.
var programs = []any{app.Main, Main}

// buildOnce builds migctl and the controller into one directory.
var buildOnce = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "migctl")
	if err != nil {
		return "", err
	}
	builtIn = dir
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

// background runs a program until the test ends, and returns the last word of the
// first line that has the mark.
func background(t *testing.T, name, mark string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), filepath.Join(binaries(t), name), args...)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = patience
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
	case <-time.After(patience):
		require.Fail(t, name+" does not say "+mark)
		return ""
	}
}

// screen is a terminal with a program in it.
type screen struct {
	t   *testing.T
	tty *os.File
	cmd *exec.Cmd
	// lock is for what is on the screen.
	lock sync.Mutex
	term *vt.Emulator
	// hidden is set while there is no cursor.
	hidden bool
	// changed has something when the screen may look different.
	changed chan struct{}
	closed  chan struct{}
}

// open starts a program in a terminal of this width, with the environment of a
// person who has just logged in and the variables given.
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

// migctl opens migctl in a terminal.
func migctl(t *testing.T, width int, address string, args ...string) *screen {
	t.Helper()
	return open(t, width, []string{addressEnv + "=" + address}, filepath.Join(binaries(t), "migctl"), args...)
}

// show puts on the screen what the program says, until it is gone.
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

// lines are the rows of the screen down to the last that is not empty.
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

// until waits for the screen to look as it should.
func (s *screen) until(what string, seen func() bool) {
	s.t.Helper()
	deadline := time.After(patience)
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

// sees waits for a text.
func (s *screen) sees(text string) {
	s.t.Helper()
	s.until(text, func() bool { return strings.Contains(s.text(), text) })
}

func (s *screen) types(keys string) {
	s.t.Helper()
	_, err := s.tty.WriteString(keys)
	require.NoError(s.t, err)
}

// resize makes the terminal another width.
func (s *screen) resize(width int) {
	s.t.Helper()
	s.lock.Lock()
	defer s.lock.Unlock()
	s.term.Resize(width, s.term.Height())
	require.NoError(s.t, pty.Setsize(s.tty, &pty.Winsize{Rows: uint16(s.term.Height()), Cols: uint16(width)}))
}

// ends waits for the end of the program, and returns its exit status. It leaves
// the terminal as it was: the cursor there, at the begin of a line, no colour.
func (s *screen) ends() int {
	s.t.Helper()
	select {
	case <-s.closed:
	case <-time.After(patience):
		require.Failf(s.t, "the program", "does not end:\n%s", s.text())
	}
	err := s.cmd.Wait()
	if err != nil {
		failed := new(exec.ExitError)
		require.ErrorAs(s.t, err, &failed)
	}
	require.False(s.t, s.hidden, "the cursor is there")
	require.False(s.t, s.term.IsAltScreen(), "what was said stays")
	require.Zero(s.t, s.term.CursorPosition().X, "the prompt begins a line:\n%s", s.text())
	at := s.term.CursorPosition()
	_, _ = s.term.WriteString("x")
	style := s.term.CellAt(at.X, at.Y).Style
	require.True(s.t, style.IsZero(), "no colour is left on")
	_, _ = s.term.WriteString("\b \b")
	return s.cmd.ProcessState.ExitCode()
}

// colourOf returns the colour of the first letter of a text, in the numbers of
// terminals; -1 for none.
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
