package migclient_test

import (
	"context"
	"fmt"
	"log"
	"net/http"
	"strings"

	"github.com/mig-controller/mig-controller/gen/go/migclient"
	migcontrollerv1 "github.com/mig-controller/mig-controller/gen/go/migcontroller/v1"
	"github.com/mig-controller/mig-controller/gen/go/migcontroller/v1/migcontrollerv1connect"
	"github.com/mig-controller/mig-controller/gen/go/miglet/commands"
)

// Sends a command and follows it to its end, even if the controller is restarted or the
// network breaks meanwhile.
func ExampleFollower() {
	ctx := context.Background()
	admin := migcontrollerv1connect.NewAdminServiceClient(http.DefaultClient, "http://localhost:8080")
	follower := migclient.Follower{
		Admin: admin,
		Broken: func(err error) error {
			log.Print(err, "; trying again")
			return nil
		},
	}

	var id string
	for change, err := range follower.Follow(ctx, &migcontrollerv1.WatchFleetRequest{VmId: "sim-vm-0001"}) {
		if err != nil {
			log.Fatal(err) // the last: another try would not help
		}
		if id == "" { // The first answer has only a cursor: from here on nothing is missed.
			sent, err := admin.SendCommand(ctx, &migcontrollerv1.SendCommandRequest{
				VmId:    "sim-vm-0001",
				Command: &commands.Command{Type: "drain"},
			})
			if err != nil {
				log.Fatal(err)
			}
			id = sent.GetCommand().GetCommand().GetId()
		}
		record := change.GetCommand()
		if record.GetCommand().GetId() != id {
			continue
		}
		fmt.Println(record.GetVmId(), strings.TrimPrefix(record.GetState().String(), "COMMAND_STATE_"))
		if record.GetFinishedAt() != nil {
			break
		}
	}

	// Output:
	// sim-vm-0001 PENDING
	// sim-vm-0001 DELIVERED
	// sim-vm-0001 SUCCEEDED
}

// A token that is sent with every call. Over plaintext http it is sent to this machine
// only.
func ExampleWithToken() {
	const address = "http://localhost:8080"
	auth, err := migclient.WithToken(address, "example-token")
	if err != nil {
		log.Fatal(err)
	}
	admin := migcontrollerv1connect.NewAdminServiceClient(http.DefaultClient, address, auth)

	_, err = admin.GetServerInfo(context.Background(), &migcontrollerv1.GetServerInfoRequest{})
	fmt.Println(migclient.ErrorDetail(err).GetReason()) // the controller does not know this token

	_, err = migclient.WithToken("http://controller.example:8080", "example-token")
	fmt.Println(err)

	// Output:
	// ERROR_REASON_UNAUTHENTICATED
	// token must not cross the network in plaintext: use an https address, or the option PlaintextToken to send it anyway
}

// The clients of both services. Options has the credentials, for a controller that requires
// some.
func ExampleConnect() {
	controller, err := migclient.Connect("http://localhost:8080", migclient.Options{})
	if err != nil {
		log.Fatal(err)
	}
	defer controller.Close()

	who, err := controller.Access.WhoAmI(context.Background(), &migcontrollerv1.WhoAmIRequest{})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(who.GetPrincipal().GetName(), who.GetPrincipal().GetRole())

	// Output:
	// anyone ROLE_ADMIN
}
