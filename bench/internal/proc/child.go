// Package proc owns the processes that are measured: it starts and ends them, and reads the
// kernel's data about them.
package proc

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

// stopWithin is how long a process may take to end after SIGTERM.
const stopWithin = 30 * time.Second

// Child is a process started by this one. It does not outlive it.
type Child struct {
	cmd     *exec.Cmd
	logPath string
	exited  chan struct{}
	err     error // the result of Wait; valid once exited is closed
	ending  chan struct{}
}

// Start starts a program whose output goes to the file at logPath.
func Start(logPath, program string, args ...string) (*Child, error) {
	log, err := os.OpenFile(logPath, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the log of %s: %w", filepath.Base(program), err)
	}
	defer func() { _ = log.Close() }() // the child has its own descriptor
	// Stop and Kill end children in an order that contexts cannot express.
	cmd := exec.Command(program, args...) //nolint:gosec,noctx // the program is given by the operator
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Env = environment()
	cmd.SysProcAttr = alone()
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", program, err)
	}
	c := &Child{cmd: cmd, logPath: logPath, exited: make(chan struct{}), ending: make(chan struct{})}
	go func() {
		c.err = cmd.Wait()
		close(c.exited)
	}()
	return c, nil
}

// PID returns the process id.
func (c *Child) PID() int { return c.cmd.Process.Pid }

// Gone is closed when the process has ended.
func (c *Child) Gone() <-chan struct{} { return c.exited }

// Watch returns a context that ends when the process does, with the end of its log as the
// cause, unless Stop or Kill ended it.
func (c *Child) Watch(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	go func() {
		select {
		case <-c.exited:
			select {
			case <-c.ending:
			default:
				cancel(c.Failure())
			}
		case <-c.ending:
		case <-ctx.Done():
		}
	}()
	return ctx, func() { cancel(context.Canceled) }
}

// Failure returns an error that describes how a process has ended.
func (c *Child) Failure() error {
	<-c.exited
	end := "exit status 0"
	if c.err != nil {
		end = c.err.Error()
	}
	return fmt.Errorf("%s ended unexpectedly (%s); the end of its log: %s", filepath.Base(c.cmd.Path), end, c.logTail())
}

// logTail returns the end of the log.
func (c *Child) logTail() string {
	const enough = 600
	log, err := os.ReadFile(c.logPath)
	if err != nil {
		return err.Error()
	}
	return string(log[max(0, len(log)-enough):])
}

// Stop asks the process to end and waits for it. It returns an error when the process ends
// with a status other than 0, or has to be killed.
func (c *Child) Stop() error {
	c.expectEnd()
	_ = c.cmd.Process.Signal(syscall.SIGTERM) // fails if it has already ended
	select {
	case <-c.exited:
		if c.err != nil {
			return c.Failure()
		}
		return nil
	case <-time.After(stopWithin):
		c.Kill()
		return errors.New("process did not end on SIGTERM and was killed")
	}
}

// Kill ends the process as a crash does and waits until it has ended.
func (c *Child) Kill() {
	c.expectEnd()
	_ = c.cmd.Process.Kill() // fails if it has already ended
	<-c.exited
}

func (c *Child) expectEnd() {
	select {
	case <-c.ending:
	default:
		close(c.ending)
	}
}
