package fleet

import (
	"encoding/json"
	"math"
	"strconv"
)

// Machine is the hardware of a VM, as its last vm_started described it. What that left
// out or what could not be read is empty or zero.
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

// Described takes over what a vm_started says of the machine. One that says nothing of
// it leaves what was known.
func (v VM) Described(e Event) VM {
	if m := machineOf(e); m != (Machine{}) {
		v.Machine = &m
	}
	return v
}

// machineOf reads the members of a vm_started. Agents send them as texts in data on the
// stream, and at the top level over HTTP: memory in MB of 2²⁰ bytes, disk in GB of 2³⁰.
func machineOf(e Event) Machine {
	said := membersOf(e.Body)
	if e.Via == Stream {
		said = membersOf(said["data"])
	}
	return Machine{
		Type: said.text("machine_type"), Region: said.text("region"),
		CPU: said.number("cpu", 1, math.MaxInt32), MemoryBytes: said.number("memory", 1<<20, math.MaxInt64),
		DiskBytes: said.number("disk", 1<<30, math.MaxInt64),
	}
}

// members are those of a JSON object. What is absent or malformed reads as nothing.
type members map[string]json.RawMessage

func membersOf(object json.RawMessage) (m members) {
	if json.Unmarshal(object, &m) != nil {
		return nil
	}
	return m
}

// text returns a text of at most MaxIDLength bytes.
func (m members) text(name string) (s string) {
	if json.Unmarshal(m[name], &s) != nil || len(s) > MaxIDLength {
		return ""
	}
	return s
}

// number returns a number, or one in a text, of so many units: rounded down, and 0 if it
// is below 1 then or not below limit.
func (m members) number(name string, unit, limit float64) int64 {
	text := m.text(name)
	if text == "" {
		text = string(m[name])
	}
	n, err := strconv.ParseFloat(text, 64)
	if n *= unit; err == nil && n >= 1 && n < limit { // NaN is neither
		return int64(n)
	}
	return 0
}
