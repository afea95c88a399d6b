// Package target owns the servers that h2spec is run against: the controller, as it is
// built and started by those who use it, and plain net/http beside it.
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
	// HTTPAddr and GRPCAddr are where it listens.
	HTTPAddr, GRPCAddr string

	dir    string
	cmd    *exec.Cmd
	logged chan struct{} // closed when all of its log has been read
}

// started is the record that the controller logs when it listens.
type started struct {
	Msg      string `json:"msg"`
	HTTPAddr string `json:"http_addr"`
	GRPCAddr string `json:"grpc_addr"`
}

// StartController starts the program at path on free ports, and returns when it
// listens. It must be stopped; the end of ctx kills it.
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

// read reads the log to its end, and sends the record of the start.
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
	_, _ = io.Copy(io.Discard, log) // after a line that was too long
}

// stopWithin is how long the controller may take, which promises to stop within 10 s.
const stopWithin = 15 * time.Second

// Stop ends the controller. It returns an error when it does not end well: nothing
// that a client sends may break it.
func (c *Controller) Stop() error {
	_ = c.cmd.Process.Signal(syscall.SIGTERM) // fails when it is gone already
	kill := time.AfterFunc(stopWithin, func() { _ = c.cmd.Process.Kill() })
	defer kill.Stop()
	<-c.logged
	err := c.cmd.Wait()
	if err != nil {
		err = fmt.Errorf("controller: %w", err)
	}
	return errors.Join(err, os.RemoveAll(c.dir))
}
