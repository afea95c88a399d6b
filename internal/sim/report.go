package sim

import (
	"math"
	"time"

	"github.com/mig-controller/mig-controller/gen/go/miglet/commands"
)

const (
	memoryTotal = 8 << 30
	diskTotal   = 64 << 30
)

// changeState tells the controller of a new state with a heartbeat.
func (s *stream) changeState(state string) {
	if s.state == state {
		return
	}
	s.agent.setState(s.boot, state)
	s.beat()
}

func (s *stream) beatAgain() error {
	s.tasks.after(s.agent.cfg.Timing.Heartbeat, (*stream).beatAgain)
	s.beat()
	return nil
}

// beat sends a heartbeat, and before it what the quirks slip in.
func (s *stream) beat() {
	a, q := s.agent, s.agent.cfg.Quirks
	if s.accepted && a.chance(q.ForeignIDs) {
		s.stray(s.foreign())
	}
	if s.accepted && a.chance(q.Garbage) {
		s.stray(s.garbage())
	}
	h := s.heartbeat()
	if !s.send(wrap(h)) {
		return
	}
	a.counters.beats.Add(1)
	if s.proofAt.IsZero() && h.GetRunnerState().GetConfigured() {
		s.proofAt = time.Now()
	}
}

func wrap(h *commands.Heartbeat) *commands.MIGletMessage {
	return &commands.MIGletMessage{Message: &commands.MIGletMessage_Heartbeat{Heartbeat: h}}
}

func (s *stream) heartbeat() *commands.Heartbeat {
	a, q := s.agent, s.agent.cfg.Quirks
	h := &commands.Heartbeat{
		VmId:        a.cfg.VMID,
		PoolId:      a.cfg.PoolID,
		OrgId:       a.cfg.OrgID,
		CurrentJob:  s.job,
		Timestamp:   time.Now().Unix(),
		MigletState: s.state,
	}
	if !a.chance(q.NoHealth) {
		h.Health = s.health()
	}
	if a.chance(q.NoRunnerState) {
		return h
	}
	h.RunnerState = &commands.RunnerState{State: s.runner(), Configured: s.configured}
	if s.configured {
		h.RunnerState.RunnerName = a.cfg.VMID
		h.RunnerState.Labels = s.labels
	}
	return h
}

// health is higher while a job runs.
func (s *stream) health() *commands.VMHealth {
	a := s.agent
	cpu, memory := 1+4*a.rng.Float64(), 15+5*a.rng.Float64()
	if s.job != nil {
		cpu, memory = 60+35*a.rng.Float64(), 45+30*a.rng.Float64()
	}
	disk := 30 + 5*a.rng.Float64()
	h := &commands.VMHealth{
		CpuUsagePercent:    cpu,
		MemoryUsagePercent: memory,
		DiskUsagePercent:   disk,
		MemoryTotalBytes:   memoryTotal,
		MemoryUsedBytes:    int64(memory / 100 * memoryTotal),
		DiskTotalBytes:     diskTotal,
		DiskUsedBytes:      int64(disk / 100 * diskTotal),
	}
	if a.chance(a.cfg.Quirks.NaN) {
		h.CpuUsagePercent, h.MemoryUsagePercent, h.DiskUsagePercent = math.NaN(), math.Inf(1), math.Inf(-1)
	}
	return h
}

// event reports whether the event was handed to the connection.
func (s *stream) event(kind string, data map[string]string) bool {
	a := s.agent
	sent := s.send(&commands.MIGletMessage{Message: &commands.MIGletMessage_Event{Event: &commands.EventNotification{
		Type:      kind,
		VmId:      a.cfg.VMID,
		PoolId:    a.cfg.PoolID,
		OrgId:     a.cfg.OrgID,
		Data:      data,
		Timestamp: time.Now().Unix(),
	}}})
	if sent {
		a.counters.events.Add(1)
	}
	return sent
}
