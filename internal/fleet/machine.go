package fleet

import (
	"math"
)

// Machine is the hardware of a VM, as its last vm_started described it. Fields that were
// missing or unreadable are empty or zero.
type Machine struct {
	Type        string `json:"type,omitempty"`
	Region      string `json:"region,omitempty"`
	CPU         int64  `json:"cpu,omitempty"` // processors; fits in 32 bits
	MemoryBytes int64  `json:"memory_bytes,omitempty"`
	DiskBytes   int64  `json:"disk_bytes,omitempty"`
}

func (m *Machine) equal(o *Machine) bool {
	if m == nil || o == nil {
		return m == o
	}
	return *m == *o
}

// ApplyMachine applies the machine data of a vm_started. One without machine data changes
// nothing.
func (v VM) ApplyMachine(e Event) VM {
	if m := machineOf(e); m != (Machine{}) {
		v.Machine = &m
	}
	return v
}

// machineOf reads the members of a vm_started: memory in MB of 2²⁰ bytes, disk in GB of
// 2³⁰.
func machineOf(e Event) Machine {
	m := e.members()
	return Machine{
		Type: m.text("machine_type"), Region: m.text("region"),
		CPU: m.number("cpu", 1, math.MaxInt32), MemoryBytes: m.number("memory", 1<<20, math.MaxInt64),
		DiskBytes: m.number("disk", 1<<30, math.MaxInt64),
	}
}
