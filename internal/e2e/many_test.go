package e2e

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"

	migcontrollerv1 "github.com/mig-controller/mig-controller/gen/go/migcontroller/v1"
	"github.com/mig-controller/mig-controller/gen/go/miglet/commands"
)

// TestThousandsOfStreams defends the size of a fleet: 2,000 agents on 100 connections
// connect at once, are registered, and each gets a command.
//
// It does not run in parallel with other tests, since it uses all processors.
func TestThousandsOfStreams(t *testing.T) {
	const each, senders = 20, 250
	conns := 100
	if testing.Short() {
		conns = 10
	}
	c := start(t)
	began := time.Now()
	streams := make([]*stream, conns*each)
	ids := make([]string, len(streams))
	for i := range ids {
		ids[i] = newVM()
	}
	t.Cleanup(func() {
		for _, s := range streams {
			if s != nil {
				s.end()
			}
		}
	})
	var links []*grpc.ClientConn
	for range conns {
		links = append(links, dial(t, c.grpcAddr))
	}
	together(t, len(streams), func(i int) (err error) {
		if streams[i], err = openStream(t.Context(), links[i%conns]); err != nil {
			return err
		}
		streams[i].patience = 3 * time.Minute // the race detector slows down SQLite most
		return streams[i].registerAs(ids[i])
	})
	t.Logf("registered after %s", time.Since(began))

	served := make(chan error, 1)
	go func() { served <- serveAll(streams) }()
	together(t, senders, func(s int) error {
		for i := s; i < len(ids); i += senders {
			if _, err := c.grpcAdmin.SendCommand(t.Context(), request(ids[i], "drain")); err != nil {
				return err
			}
		}
		return nil
	})
	t.Logf("all commands accepted after %s", time.Since(began))
	require.NoError(t, <-served)
	await(t, "all commands to succeed", func() int { return c.unfinished(t) }, func(n int) bool { return n == 0 })
	require.Empty(t, c.notRegistered(t), "an agent's event is stored before its next ack")
	t.Logf("served after %s", time.Since(began))
}

// registerAs runs an agent until its runner is registered.
func (s *stream) registerAs(vm string) error {
	ack, err := s.connect(&commands.ConnectRequest{VmId: vm, PoolId: "many"})
	if err != nil || !ack.GetAccepted() {
		return fmt.Errorf("%s: %s %w", vm, ack.GetMessage(), err)
	}
	cmd, err := s.command()
	if err != nil || cmd.GetType() != "register_runner" {
		return fmt.Errorf("%s: %s %w", vm, cmd.GetType(), err)
	}
	if err := s.ack(&commands.CommandAck{CommandId: cmd.GetId(), Success: true}); err != nil {
		return err
	}
	return s.event(&commands.EventNotification{Type: "runner_registered", VmId: vm})
}

// serveAll receives one command on each stream and acks it.
func serveAll(streams []*stream) error {
	errs := make(chan error, len(streams))
	for _, s := range streams {
		go func() {
			cmd, err := s.command()
			if err == nil {
				err = s.ack(&commands.CommandAck{CommandId: cmd.GetId(), Success: true})
			}
			errs <- err
		}()
	}
	for range streams {
		if err := <-errs; err != nil {
			return err
		}
	}
	return nil
}

// notRegistered returns the VMs that are not both connected and registered.
func (c *controller) notRegistered(t *testing.T) []string {
	t.Helper()
	var missing []string
	for token := ""; ; {
		res, err := c.admin.ListVMs(t.Context(), &migcontrollerv1.ListVMsRequest{PageSize: 1000, PageToken: token})
		require.NoError(t, err)
		for _, v := range res.GetVms() {
			if !isRegistered(v) || !v.GetConnected() {
				missing = append(missing, v.GetVmId())
			}
		}
		if token = res.GetNextPageToken(); token == "" {
			return missing
		}
	}
}

// unfinished returns how many commands have not succeeded, at most a page.
func (c *controller) unfinished(t *testing.T) int {
	t.Helper()
	res, err := c.admin.ListCommands(t.Context(), &migcontrollerv1.ListCommandsRequest{
		States:   []migcontrollerv1.CommandState{pending, delivered, failed, timedOut, expired, cancelled},
		PageSize: 1,
	})
	require.NoError(t, err)
	return len(res.GetCommands())
}
