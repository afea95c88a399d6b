package peer

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/mig-controller/mig-controller/gen/go/miglet/commands"
)

// The keys of the log record of a heartbeat.
const (
	keyVM     = "vm_id"
	keyState  = "runner_state"
	keyCPU    = "cpu"
	keyMemory = "memory"
)

// files keeps each heartbeat as a file: what a controller does that was written
// in an afternoon. It logs what it receives, makes sure of the directory, and
// writes JSON that people can read. It syncs nothing.
type files struct {
	dir string
	log *slog.Logger
}

func (f files) write(h *commands.Heartbeat) error {
	f.log.Info("heartbeat received", keyVM, h.GetVmId(), keyState, h.GetRunnerState().GetState(),
		keyCPU, h.GetHealth().GetCpuUsagePercent(), keyMemory, h.GetHealth().GetMemoryUsagePercent())
	dir := filepath.Join(f.dir, h.GetVmId())
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return err
	}
	doc, err := json.MarshalIndent(h, "", "  ")
	if err != nil {
		return fmt.Errorf("write heartbeat: %w", err)
	}
	name := fmt.Sprintf("grpc-heartbeat-%s.json", time.Now().UTC().Format("20060102T150405.000000000Z"))
	return os.WriteFile(filepath.Join(dir, name), doc, 0o600)
}
