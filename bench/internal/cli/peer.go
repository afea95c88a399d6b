package cli

import (
	"context"
	"flag"
	"io"

	"github.com/mig-controller/mig-controller/bench/internal/peer"
)

func runPeer(ctx context.Context, args []string, _, stderr io.Writer) error {
	flags := flag.NewFlagSet("peer", flag.ContinueOnError)
	if err := parse(flags, args, stderr); err != nil {
		return err
	}
	return peer.Run(ctx, stderr)
}
