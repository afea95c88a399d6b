package cli

import (
	"context"
	"fmt"
	"runtime"
	"runtime/debug"

	migcontrollerv1 "github.com/mig-controller/mig-controller/gen/go/migcontroller/v1"
)

// version is set by the linker for releases:
//
//	-ldflags "-X github.com/mig-controller/mig-controller/internal/cli.version=v1.2.3"
var version string

// clientVersion is what the linker was told, else what the build recorded, else
// dev.
func clientVersion() string {
	if version != "" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" && info.Main.Version != "(devel)" {
		return info.Main.Version
	}
	return "dev"
}

type versionCmd struct {
	Client bool `help:"Do not ask the controller."`
}

// Run shows the version, and whether the controller answers.
func (cmd versionCmd) Run(ctx context.Context, in *invocation) error {
	type answer struct {
		Client    string `json:"client"`
		Platform  string `json:"platform"`
		Address   string `json:"address,omitempty"`
		Reachable *bool  `json:"reachable,omitempty"`
	}
	out := answer{Client: clientVersion(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	var failed error
	if !cmd.Client {
		if err := in.dial(); err != nil {
			return err
		}
		_, failed = ask(ctx, in, 0, in.client.ListVMs, &migcontrollerv1.ListVMsRequest{PageSize: 1})
		reachable := failed == nil
		out.Address, out.Reachable = in.address, &reachable
	}
	if in.structured() {
		if err := in.writeValue(out); err != nil {
			return err
		}
		return failed
	}
	fmt.Fprintf(in.stdout, "migctl      %s (%s)\n", out.Client, out.Platform)
	if out.Reachable != nil {
		state := "answers"
		if !*out.Reachable {
			state = "does not answer"
		}
		fmt.Fprintf(in.stdout, "controller  %s %s\n", out.Address, state)
	}
	return failed
}
