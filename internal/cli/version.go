package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"runtime"
	"runtime/debug"

	"connectrpc.com/connect"

	migcontrollerv1 "github.com/mig-controller/mig-controller/gen/go/migcontroller/v1"
)

// version is set by the linker for releases:
//
//	-ldflags "-X github.com/mig-controller/mig-controller/internal/cli.version=v1.2.3"
var version string

// clientVersion returns the version set by the linker, the module version, or dev.
func clientVersion() string {
	if version != "" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" && info.Main.Version != "(devel)" {
		return info.Main.Version
	}
	return "dev"
}

// platform is the build's operating system and architecture.
const platform = runtime.GOOS + "/" + runtime.GOARCH

type versionCmd struct {
	Client bool `help:"Do not contact the controller."`
}

// Help returns the command's help text.
func (versionCmd) Help() string {
	return examples("Exits with status 0 only if the controller answers.", "migctl version", "migctl version --client")
}

// Run shows the versions of migctl and the controller.
func (cmd versionCmd) Run(ctx context.Context, in *invocation) error {
	out := versions{Client: clientVersion(), Platform: platform}
	var failed error
	if !cmd.Client {
		if err := in.dial(); err != nil {
			return err
		}
		failed = in.askServer(ctx, &out)
	}
	if in.structured() {
		if err := in.writeValue(out); err != nil {
			return err
		}
		return failed
	}
	out.write(in)
	return failed
}

// versions are the versions of migctl and the controller.
type versions struct {
	Client    string `json:"client"`
	Platform  string `json:"platform"`
	Address   string `json:"address,omitempty"`
	Reachable *bool  `json:"reachable,omitempty"`
	// Server is nil when the controller does not report its version.
	Server json.RawMessage `json:"server,omitempty"`

	info *migcontrollerv1.GetServerInfoResponse
}

// askServer fills in what the controller reports. A controller without GetServerInfo
// counts as reachable.
func (in *invocation) askServer(ctx context.Context, out *versions) error {
	res, err := callRPC(ctx, in, 0, in.client.GetServerInfo, &migcontrollerv1.GetServerInfoRequest{})
	if connect.CodeOf(err) == connect.CodeUnimplemented {
		// Every controller supports ListVMs; a proxy does not.
		_, err = callRPC(ctx, in, 0, in.client.ListVMs, &migcontrollerv1.ListVMsRequest{PageSize: 1})
	}
	reachable := err == nil
	out.Address, out.Reachable, out.info = in.address, &reachable, res
	if res == nil {
		return err
	}
	out.Server, err = protoDocument(res)
	return err
}

func (v versions) write(in *invocation) {
	fmt.Fprintf(in.stdout, "migctl      %s (%s)\n", v.Client, v.Platform)
	if v.Reachable == nil {
		return
	}
	switch {
	case !*v.Reachable:
		fmt.Fprintf(in.stdout, "controller  %s does not answer\n", v.Address)
	case v.info == nil:
		fmt.Fprintf(in.stdout, "controller  %s answers; it is too old to report its version\n", v.Address)
	default:
		fmt.Fprintf(in.stdout, "controller  %s at %s\n", printable(v.info.GetVersion()), v.Address)
		fmt.Fprintf(in.stdout, "  started   %s\n", in.whenBoth(v.info.GetStartedAt()).text)
		fmt.Fprintf(in.stdout, "  sessions  %d\n", v.info.GetLiveSessions())
	}
}
