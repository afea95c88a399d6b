package cli

import (
	"testing"

	"github.com/stretchr/testify/require"

	migcontrollerv1 "github.com/mig-controller/mig-controller/gen/go/migcontroller/v1"
)

// Unknown properties of a machine are omitted.
func TestMachineText(t *testing.T) {
	t.Parallel()
	for want, m := range map[string]*migcontrollerv1.Machine{
		"":                                     nil,
		"m1":                                   {MachineType: "m1"},
		"1 CPU, 512.0 MiB memory":              {Cpu: 1, MemoryBytes: 1 << 29},
		"m1, 2 CPUs, 100.0 GiB disk":           {MachineType: "m1", Cpu: 2, DiskBytes: 100 << 30},
		"8 CPUs, 8.0 GiB memory, 1.0 GiB disk": {Cpu: 8, MemoryBytes: 8 << 30, DiskBytes: 1 << 30},
	} {
		require.Equal(t, want, machineText(m))
	}
}
