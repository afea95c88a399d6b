package migcontrollerv1connect_test

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// The packages of gen/go depend only on Connect, Protobuf and the standard library, and not
// on the server.
func TestDependencies(t *testing.T) {
	t.Parallel()
	const own = "github.com/mig-controller/mig-controller"
	list := exec.CommandContext(t.Context(), "go", "list", "-deps",
		"-f", "{{if not .Standard}}{{.Module.Path}} {{.ImportPath}}{{end}}", own+"/gen/go/...")
	out, err := list.Output()
	require.NoError(t, err)
	modules := map[string]bool{}
	for line := range strings.Lines(string(out)) {
		module, pkg, _ := strings.Cut(strings.TrimSpace(line), " ")
		modules[module] = true
		if module == own {
			require.Contains(t, pkg, own+"/gen/go/")
		}
	}
	require.Equal(t, map[string]bool{
		own: true, "connectrpc.com/connect": true, "google.golang.org/protobuf": true,
	}, modules)
}
