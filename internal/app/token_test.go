package app

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/internal/fleet"
	"github.com/mig-controller/mig-controller/internal/metric"
	"github.com/mig-controller/mig-controller/internal/session"
)

// wire is the stream of an agent. It receives the commands.
type wire struct{ got chan fleet.Params }

func (wire) Accept() error { return nil }
func (wire) Peer() string  { return "" }
func (wire) Interrupt()    {}
func (wire) Abort()        {}

func (l wire) Deliver(c fleet.Command, p fleet.Params) error {
	p.Strings[commandID] = string(c.ID)
	l.got <- p
	return nil
}

const commandID = "id" // added to the parameters of a command

// next returns the parameters of the next command.
func (l wire) next(t *testing.T) map[string]string {
	t.Helper()
	select {
	case p := <-l.got:
		return p.Strings
	case <-time.After(time.Minute):
		require.FailNow(t, "nothing was sent")
		return nil
	}
}

// A failed registration is retried at once with the new token when the token file changes: the
// file of the option is watched, and the controller's sessions are woken.
func TestAnotherTokenInTheFileIsTriedAtOnce(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "token")
	write := func(token string) { require.NoError(t, os.WriteFile(file, []byte(token), 0o600)) }
	write("OLD")
	o := testOptions(t)
	o.RegistrationTokenFile, o.RunnerURL = file, "https://ci.example/o"
	svc, err := newService(t.Context(), o, front{}, quiet(), metric.NewRegistry(), nil)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, svc.Close()) })
	c, ok := svc.(*controller)
	require.True(t, ok)
	c.tokenFile.Look(t.Context()) // as Run begins

	agent := wire{make(chan fleet.Params, 10)}
	s, err := c.sessions.Open(t.Context(), fleet.Hello{VM: "vm-1"}, agent)
	require.NoError(t, err)
	defer s.Close(&session.EndError{Cause: session.EndClosed})
	for range 2 { // the second attempt is made at once, the third is not
		sent := agent.next(t)
		require.Equal(t, "OLD", sent[fleet.RegistrationTokenParam])
		require.NoError(t, s.Ack(fleet.Ack{CommandID: fleet.CommandID(sent[commandID])}))
	}
	require.Eventually(t, func() bool { return registrationOf(t.Context(), c, "vm-1").Failures == 2 }, time.Minute, time.Millisecond)
	require.Greater(t, time.Until(registrationOf(t.Context(), c, "vm-1").NextAttemptAt), 10*time.Second)
	c.tokenFile.Look(t.Context())
	require.Empty(t, agent.got)

	write("NEW")
	began := time.Now()
	c.tokenFile.Look(t.Context())
	require.Equal(t, "NEW", agent.next(t)[fleet.RegistrationTokenParam])
	require.Less(t, time.Since(began), 10*time.Second, "the delay is over")
}

func registrationOf(ctx context.Context, c *controller, vm fleet.VMID) fleet.Registration {
	state, err := c.engine.State(ctx, vm)
	if err != nil {
		return fleet.Registration{}
	}
	return state.VM.Registration
}
