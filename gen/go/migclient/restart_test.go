package migclient_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/mig-controller/mig-controller/gen/go/internal/clienttest"
	"github.com/mig-controller/mig-controller/gen/go/migclient"
	migcontrollerv1 "github.com/mig-controller/mig-controller/gen/go/migcontroller/v1"
	"github.com/mig-controller/mig-controller/gen/go/migcontroller/v1/migcontrollerv1connect"
	"github.com/mig-controller/mig-controller/gen/go/miglet/commands"
)

// Following continues with a restarted controller: the changes around the restart are
// received once and in order, over every protocol.
func TestFollowAcrossRestart(t *testing.T) {
	t.Parallel()
	for _, protocol := range clienttest.Protocols {
		t.Run(protocol.Name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(t.Context(), clienttest.Patience)
			defer cancel()
			dir := t.TempDir()
			c, err := clienttest.Start(program, dir)
			require.NoError(t, err)
			t.Cleanup(func() { require.NoError(t, c.Stop()) })
			admin := migcontrollerv1connect.NewAdminServiceClient(
				clienttest.NewHTTPClient(t, protocol.HTTP2), "http://"+c.HTTP, protocol.Options...)
			send := func(id string) {
				_, err := admin.SendCommand(ctx, &migcontrollerv1.SendCommandRequest{
					VmId: "vm-1", Command: &commands.Command{Id: id, Type: "drain"},
				})
				require.NoError(t, err)
			}
			restart := func() {
				require.NoError(t, c.Stop())
				c, err = clienttest.Start(program, dir, "--http-addr="+c.HTTP)
				require.NoError(t, err)
			}

			follower := migclient.Follower{Admin: admin}
			begun := false
			var seen []string
			for change, err := range follower.Follow(ctx, &migcontrollerv1.WatchFleetRequest{VmId: "vm-1"}) {
				require.NoError(t, err)
				if !begun {
					begun = true
					send("1")
				}
				if change.GetCommand() != nil {
					seen = append(seen, change.GetCommand().GetCommand().GetId())
				}
				if len(seen) == 1 && change.GetCommand() != nil {
					send("2")
					restart()
					send("3")
				}
				if len(seen) == 3 {
					break
				}
			}
			require.Equal(t, []string{"1", "2", "3"}, seen)
		})
	}
}
