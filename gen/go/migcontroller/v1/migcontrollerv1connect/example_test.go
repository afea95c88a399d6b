package migcontrollerv1connect_test

import (
	"context"
	"fmt"
	"log"
	"net/http"
	"strings"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/mig-controller/mig-controller/gen/go/migclient"
	migcontrollerv1 "github.com/mig-controller/mig-controller/gen/go/migcontroller/v1"
	"github.com/mig-controller/mig-controller/gen/go/migcontroller/v1/migcontrollerv1connect"
	"github.com/mig-controller/mig-controller/gen/go/miglet/commands"
)

// Sends a command to a VM and follows it to its end.
func Example() {
	ctx := context.Background()
	admin := migcontrollerv1connect.NewAdminServiceClient(http.DefaultClient, "http://localhost:8080")

	changes, err := admin.WatchFleet(ctx, &migcontrollerv1.WatchFleetRequest{VmId: "sim-vm-0001"})
	if err != nil {
		log.Fatal(err)
	}
	defer changes.Close()
	if !changes.Receive() { // only a cursor: from here on nothing is missed
		log.Fatal(changes.Err())
	}

	sent, err := admin.SendCommand(ctx, &migcontrollerv1.SendCommandRequest{
		VmId: "sim-vm-0001",
		Command: &commands.Command{
			Type:         "set_log_level",
			StringParams: map[string]string{"level": "debug"},
		},
	})
	if err != nil {
		log.Fatal(err)
	}

	for changes.Receive() {
		record := changes.Msg().GetCommand()
		if record.GetCommand().GetId() != sent.GetCommand().GetCommand().GetId() {
			continue
		}
		state := strings.TrimPrefix(record.GetState().String(), "COMMAND_STATE_")
		fmt.Println(record.GetVmId(), record.GetCommand().GetType(), state)
		if record.GetFinishedAt() != nil {
			return
		}
	}
	log.Fatal(changes.Err())

	// Output:
	// sim-vm-0001 set_log_level PENDING
	// sim-vm-0001 set_log_level DELIVERED
	// sim-vm-0001 set_log_level SUCCEEDED
}

// Sends a command and waits for its end. If the context ends before the wait does, the
// answer is returned shortly before that.
func ExampleAdminServiceClient_SendCommand() {
	ctx, cancel := context.WithTimeout(context.Background(), 15*time.Second)
	defer cancel()
	admin := migcontrollerv1connect.NewAdminServiceClient(http.DefaultClient, "http://localhost:8080")

	sent, err := admin.SendCommand(ctx, &migcontrollerv1.SendCommandRequest{
		VmId: "sim-vm-0001",
		Command: &commands.Command{
			// The idempotency key: sent again, it is the same command.
			Id:   "drain-2026-11-23",
			Type: "drain",
		},
		Wait: durationpb.New(10 * time.Second),
	})
	if err != nil {
		log.Fatal(err)
	}
	// After wait the record may still be PENDING or DELIVERED.
	record := sent.GetCommand()
	fmt.Println(record.GetState(), "-", record.GetAck().GetMessage())

	// Output:
	// COMMAND_STATE_SUCCEEDED - draining
}

// An error has a code, and a detail that says which rule was broken.
func ExampleAdminServiceClient_SendCommand_error() {
	admin := migcontrollerv1connect.NewAdminServiceClient(http.DefaultClient, "http://localhost:8080")

	_, err := admin.SendCommand(context.Background(), &migcontrollerv1.SendCommandRequest{
		VmId:    "sim-vm-0001",
		Command: &commands.Command{Type: "drain now"},
	})
	fmt.Println("code:", connect.CodeOf(err))

	detail := migclient.ErrorDetail(err)
	if detail == nil {
		log.Fatal(err) // not the controller's word: no connection, for instance
	}
	fmt.Println("reason:", detail.GetReason())
	fmt.Println("field:", detail.GetField())
	fmt.Println("rule:", detail.GetRule())

	// Output:
	// code: invalid_argument
	// reason: ERROR_REASON_INVALID_FIELD
	// field: command.type
	// rule: must be 1 to 128 characters of A-Z a-z 0-9 . _ -, the first a letter or digit
}

// Lists are paged. The filters must be the same for all pages.
func ExampleAdminServiceClient_ListVMs() {
	admin := migcontrollerv1connect.NewAdminServiceClient(http.DefaultClient, "http://localhost:8080")

	connected := true
	request := &migcontrollerv1.ListVMsRequest{Connected: &connected, PageSize: 2}
	for {
		page, err := admin.ListVMs(context.Background(), request)
		if err != nil {
			log.Fatal(err)
		}
		for _, vm := range page.GetVms() {
			fmt.Println(vm.GetVmId())
		}
		if page.GetNextPageToken() == "" {
			break
		}
		request.PageToken = page.GetNextPageToken()
	}

	// Output:
	// sim-vm-0001
	// sim-vm-0002
	// sim-vm-0003
}

// A watch that broke off continues after the last cursor, as if it had never ended.
func ExampleAdminServiceClient_WatchFleet_resume() {
	ctx := context.Background()
	admin := migcontrollerv1connect.NewAdminServiceClient(http.DefaultClient, "http://localhost:8080")

	// A watch that ends.
	changes, err := admin.WatchFleet(ctx, &migcontrollerv1.WatchFleetRequest{})
	if err != nil {
		log.Fatal(err)
	}
	if !changes.Receive() {
		log.Fatal(changes.Err())
	}
	cursor := changes.Msg().GetCursor()
	changes.Close()

	// What happens meanwhile.
	sent, err := admin.SendCommand(ctx, &migcontrollerv1.SendCommandRequest{
		VmId:    "sim-vm-0001",
		Command: &commands.Command{Type: "update_config"},
		Wait:    durationpb.New(10 * time.Second),
	})
	if err != nil {
		log.Fatal(err)
	}

	// The next watch reports it.
	changes, err = admin.WatchFleet(ctx, &migcontrollerv1.WatchFleetRequest{Cursor: cursor})
	if err != nil {
		log.Fatal(err)
	}
	defer changes.Close()
	for changes.Receive() {
		record := changes.Msg().GetCommand()
		if record.GetCommand().GetId() != sent.GetCommand().GetCommand().GetId() {
			continue
		}
		fmt.Println(record.GetCommand().GetType(), record.GetState())
		if record.GetFinishedAt() != nil {
			return
		}
	}
	log.Fatal(changes.Err())

	// Output:
	// update_config COMMAND_STATE_PENDING
	// update_config COMMAND_STATE_DELIVERED
	// update_config COMMAND_STATE_SUCCEEDED
}

// gRPC instead of Connect. It needs HTTP/2, which must be enabled explicitly without TLS.
func ExampleNewAdminServiceClient_gRPC() {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.Protocols = new(http.Protocols)
	transport.Protocols.SetUnencryptedHTTP2(true)
	client := &http.Client{Transport: transport}
	defer client.CloseIdleConnections()
	admin := migcontrollerv1connect.NewAdminServiceClient(client, "http://localhost:50051", connect.WithGRPC())

	info, err := admin.GetServerInfo(context.Background(), &migcontrollerv1.GetServerInfoRequest{})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(info.GetLiveSessions(), "VMs are connected")

	// Output:
	// 3 VMs are connected
}
