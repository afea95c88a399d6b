package cli

import (
	"context"
	"flag"
	"io"

	"github.com/mig-controller/mig-controller/bench/internal/peer"
)

func runPeer(ctx context.Context, args []string, _, stderr io.Writer) error {
	flags := flag.NewFlagSet("peer", flag.ContinueOnError)
	files := flags.String("files", "", "write each heartbeat as a file below this `directory`")
	if err := parse(flags, args, stderr); err != nil {
		return err
	}
	return peer.Run(ctx, *files, stderr)
}
