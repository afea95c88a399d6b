package peer

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/mig-controller/mig-controller/gen/go/miglet/commands"
)

// files keeps each heartbeat as a file: what a controller does that was written
// in an afternoon. It syncs nothing.
type files struct{ dir string }

func (f files) write(h *commands.Heartbeat) error {
	doc, err := json.Marshal(h)
	if err != nil {
		return fmt.Errorf("write heartbeat: %w", err)
	}
	path := filepath.Join(f.dir, h.GetVmId(),
		fmt.Sprintf("heartbeat-%s.json", time.Now().UTC().Format("20060102T150405.000000000Z")))
	err = os.WriteFile(path, doc, 0o600)
	if errors.Is(err, fs.ErrNotExist) {
		if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
			return err
		}
		err = os.WriteFile(path, doc, 0o600)
	}
	return err
}
