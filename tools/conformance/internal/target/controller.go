// Package target owns the servers that h2spec tests: the controller, built and started as
// by users, and plain net/http for comparison.
package target

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

// Certificate names the files of a certificate and its key; empty for plaintext.
type Certificate struct{ Cert, Key string }

// Controller is a running controller.
type Controller struct {
	// HTTPAddr and GRPCAddr are its listening addresses.
	HTTPAddr, GRPCAddr string

	dir    string
	cmd    *exec.Cmd
	logged chan struct{} // closed when all of its log has been read
}

// started is the log record with the addresses.
type started struct {
	Msg      string `json:"msg"`
	HTTPAddr string `json:"http_addr"`
	GRPCAddr string `json:"grpc_addr"`
}

// StartController starts the program at path on free ports, and returns when it listens.
// The caller must stop it; the end of ctx kills it.
func StartController(ctx context.Context, path string, cert Certificate) (*Controller, error) {
	dir, err := os.MkdirTemp("", "conformance-controller-")
	if err != nil {
		return nil, err
	}
	args := []string{
		"--http-addr=127.0.0.1:0", "--grpc-addr=127.0.0.1:0", "--log-format=json",
		"--data-dir=" + filepath.Join(dir, "data"),
	}
	if cert != (Certificate{}) {
		args = append(args, "--tls-cert="+cert.Cert, "--tls-key="+cert.Key)
	}
	c := &Controller{dir: dir, cmd: exec.CommandContext(ctx, path, args...), logged: make(chan struct{})} //nolint:gosec // built from this tree
	log, err := c.cmd.StderrPipe()
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	if err := c.cmd.Start(); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	listening := make(chan started)
	go c.read(log, listening)
	s, ok := <-listening
	if !ok {
		return nil, errors.Join(errors.New("the controller did not start"), c.Stop())
	}
	c.HTTPAddr, c.GRPCAddr = s.HTTPAddr, s.GRPCAddr
	return c, nil
}

// read reads the log to its end, and sends the record with the addresses.
func (c *Controller) read(log io.Reader, listening chan<- started) {
	defer close(c.logged)
	defer close(listening)
	lines := bufio.NewScanner(log)
	for sent := false; lines.Scan(); {
		var s started
		if sent || json.Unmarshal(lines.Bytes(), &s) != nil || s.Msg != "controller started" {
			continue
		}
		listening <- s
		sent = true
	}
	_, _ = io.Copy(io.Discard, log) // after a line that is too long
}

// stopWithin is how long the controller may take to stop; it promises 10 s.
const stopWithin = 15 * time.Second

// Stop ends the controller. It returns an error if the exit is not clean: no client may
// cause that.
func (c *Controller) Stop() error {
	_ = c.cmd.Process.Signal(syscall.SIGTERM) // fails if it has already ended
	kill := time.AfterFunc(stopWithin, func() { _ = c.cmd.Process.Kill() })
	defer kill.Stop()
	<-c.logged
	err := c.cmd.Wait()
	if err != nil {
		err = fmt.Errorf("controller: %w", err)
	}
	return errors.Join(err, os.RemoveAll(c.dir))
}
