// Package clienttest owns what the tests of the generated clients share: a controller,
// which is the real program in a separate process, and the protocols to call it with.
package clienttest

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// Patience is how long a test waits for an expected event.
const Patience = 20 * time.Second

// Controller is a running controller.
type Controller struct {
	// HTTP and GRPC are its two addresses, host:port. Both serve everything.
	HTTP, GRPC string

	cmd    *exec.Cmd
	log    bytes.Buffer
	exited chan struct{} // closed when the process has ended
}

// Program returns the path of the controller to run: CONTROLLER_BIN, which may be relative
// to the repository, or else one that it builds in dir. root is the path of the repository.
func Program(root, dir string) (string, error) {
	if path := os.Getenv("CONTROLLER_BIN"); filepath.IsAbs(path) {
		return path, nil
	} else if path != "" {
		return filepath.Join(root, path), nil
	}
	if err := readSources(root); err != nil {
		return "", err
	}
	path := filepath.Join(dir, "controller")
	build := exec.Command("go", "build", "-o", path, "./cmd/controller")
	build.Dir = root
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the controller: %w\n%s", err, out)
	}
	return path, nil
}

// readSources reads the directories of the program, so that the go command reruns the tests
// when a file there has changed.
func readSources(root string) error {
	for _, dir := range []string{"cmd", "internal"} {
		err := filepath.WalkDir(filepath.Join(root, dir), func(_ string, _ fs.DirEntry, err error) error { return err })
		if err != nil {
			return err
		}
	}
	return nil
}

// Start starts the program with the data directory and free ports, and waits until it
// serves. The caller must stop it.
func Start(program, dir string, options ...string) (*Controller, error) {
	args := []string{"--data-dir=" + dir, "--http-addr=localhost:0", "--grpc-addr=localhost:0"}
	c := &Controller{cmd: exec.Command(program, append(args, options...)...), exited: make(chan struct{})}
	c.cmd.Stderr = &c.log
	c.cmd.SysProcAttr = dieWithTests()
	for _, variable := range os.Environ() {
		if !strings.HasPrefix(variable, "CONTROLLER_") {
			c.cmd.Env = append(c.cmd.Env, variable)
		}
	}
	stdout, err := c.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := c.cmd.Start(); err != nil {
		return nil, err
	}
	impatient := time.AfterFunc(Patience, func() { _ = c.cmd.Process.Kill() })
	defer impatient.Stop()
	lines := bufio.NewScanner(stdout)
	for (c.HTTP == "" || c.GRPC == "") && lines.Scan() {
		if at, found := strings.CutPrefix(lines.Text(), "  http addr"); found {
			c.HTTP = strings.TrimSpace(at)
		}
		if at, found := strings.CutPrefix(lines.Text(), "  grpc addr"); found {
			c.GRPC = strings.TrimSpace(at)
		}
	}
	go func() {
		defer close(c.exited)
		_, _ = io.Copy(io.Discard, stdout)
		_ = c.cmd.Wait() // ProcessState has the result
	}()
	if c.HTTP == "" || c.GRPC == "" {
		_ = c.cmd.Process.Kill() // it may have ended
		<-c.exited
		return nil, fmt.Errorf("the controller does not start:\n%s", &c.log)
	}
	return c, nil
}

// Stop asks the controller to stop and waits until it has. It returns an error if the
// controller does not exit in time with status 0.
func (c *Controller) Stop() error {
	if err := c.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	impatient := time.AfterFunc(Patience, func() { _ = c.cmd.Process.Kill() })
	defer impatient.Stop()
	<-c.exited
	if !c.cmd.ProcessState.Success() {
		return fmt.Errorf("the controller ended with %s:\n%s", c.cmd.ProcessState, &c.log)
	}
	return nil
}
