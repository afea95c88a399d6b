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

// changeState reports a new state with a heartbeat, if the agent's kind does that.
func (s *stream) changeState(state string) {
	if s.state == state {
		return
	}
	s.agent.setState(s.boot, state)
	if s.agent.cfg.Kind.reportsState() {
		s.beat()
	}
}

// phase is the wait before the first regular heartbeat.
func (a *Agent) phase() time.Duration {
	return time.Duration(a.rng.Float64() * float64(a.cfg.Timing.Heartbeat))
}

// beatAgain sends a heartbeat and schedules the next. Builds in the field do so without a
// stream too.
func (s *stream) beatAgain() error {
	ahead := &s.agenda
	if s.agent.cfg.Kind.executes() {
		ahead = &s.tasks
	}
	ahead.after(s.agent.cfg.Timing.Heartbeat, (*stream).beatAgain)
	s.beat()
	return nil
}

// beat sends a heartbeat, preceded by what the quirks insert. Except for ideal agents, a
// heartbeat that cannot be sent on the stream is sent over HTTP.
func (s *stream) beat() {
	a, q := s.agent, s.agent.cfg.Quirks
	if s.accepted && a.chance(q.ForeignIDs) {
		s.stray(s.foreign())
	}
	if s.accepted && a.chance(q.Garbage) {
		s.stray(s.garbage())
	}
	h := s.heartbeat()
	if a.chance(q.LateHeartbeats) {
		s.beatLate(h)
		return
	}
	if s.deliver(h, a.now()) && s.proofAt.IsZero() && h.GetRunnerState().GetConfigured() {
		s.proofAt = time.Now()
	}
}

// deliver reports whether the heartbeat, which was created at the given time, was passed to
// the stream.
func (s *stream) deliver(h *commands.Heartbeat, made time.Time) bool {
	a := s.agent
	sent := s.send(wrap(h))
	switch {
	case sent:
		a.counters.beats.Add(1)
	case !a.cfg.Kind.executes():
		s.postHeartbeat(h, made)
	}
	return sent
}

func (s *stream) postHeartbeat(h *commands.Heartbeat, made time.Time) {
	s.outbox.add(report{routeHeartbeat, s.httpHeartbeat(h, made), &s.agent.counters.beats})
}

func wrap(h *commands.Heartbeat) *commands.MIGletMessage {
	return &commands.MIGletMessage{Message: &commands.MIGletMessage_Heartbeat{Heartbeat: h}}
}

func (s *stream) heartbeat() *commands.Heartbeat {
	a, q := s.agent, s.agent.cfg.Quirks
	h := &commands.Heartbeat{
		VmId:       a.cfg.VMID,
		PoolId:     a.cfg.PoolID,
		OrgId:      a.cfg.OrgID,
		CurrentJob: s.currentJob(),
		Timestamp:  a.now().Unix(),
	}
	if a.cfg.Kind.reportsState() {
		h.MigletState = s.state
	}
	if !a.chance(q.NoHealth) {
		h.Health = s.health()
	}
	if !a.chance(q.NoRunnerState) {
		h.RunnerState = s.runner()
	}
	return h
}

// runner is the runner as the agent sees it. Builds in the field report idle before there
// is one.
func (s *stream) runner() *commands.RunnerState {
	r := &commands.RunnerState{
		State: "idle", Configured: s.configured,
		RunnerName: s.agent.cfg.VMID, Labels: s.labels,
	}
	switch {
	case s.job != nil:
		r.State = "running"
	case !s.configured && s.agent.cfg.Kind.executes():
		r.State, r.RunnerName, r.Labels = "offline", "", nil
	}
	return r
}

func (s *stream) health() *commands.VMHealth {
	h := s.vmHealth()
	if !s.agent.cfg.Kind.executes() {
		h = s.processHealth()
	}
	if s.agent.chance(s.agent.cfg.Quirks.NaN) {
		h.CpuUsagePercent, h.MemoryUsagePercent, h.DiskUsagePercent = math.NaN(), math.Inf(1), math.Inf(-1)
	}
	return h
}

// processHealth is what builds in the field report as the VM's health: a processor load
// below 1, the memory of the agent's own process, the disk in whole GB, and no disk
// percentage.
func (s *stream) processHealth() *commands.VMHealth {
	a := s.agent
	total, used := int64(12+a.rng.IntN(5)), int64(2+a.rng.IntN(4))
	return &commands.VMHealth{
		CpuUsagePercent:    0.08 + 0.04*a.rng.Float64(),
		MemoryUsagePercent: float64(used) / float64(total) * 100,
		MemoryTotalBytes:   total << 20,
		MemoryUsedBytes:    used << 20,
		DiskTotalBytes:     diskTotal,
		DiskUsedBytes:      int64(19+a.rng.IntN(4)) << 30,
	}
}

// vmHealth returns higher values while a job runs.
func (s *stream) vmHealth() *commands.VMHealth {
	a := s.agent
	cpu, memory := 1+4*a.rng.Float64(), 15+5*a.rng.Float64()
	if s.job != nil {
		cpu, memory = 60+35*a.rng.Float64(), 45+30*a.rng.Float64()
	}
	disk := 30 + 5*a.rng.Float64()
	return &commands.VMHealth{
		CpuUsagePercent:    cpu,
		MemoryUsagePercent: memory,
		DiskUsagePercent:   disk,
		MemoryTotalBytes:   memoryTotal,
		MemoryUsedBytes:    int64(memory / 100 * memoryTotal),
		DiskTotalBytes:     diskTotal,
		DiskUsedBytes:      int64(disk / 100 * diskTotal),
	}
}

// event reports whether the event was passed to the stream. If not it is sent over HTTP, as
// heartbeats are.
func (s *stream) event(kind string, data map[string]string) bool {
	a := s.agent
	sent := s.send(&commands.MIGletMessage{Message: &commands.MIGletMessage_Event{Event: &commands.EventNotification{
		Type:      kind,
		VmId:      a.cfg.VMID,
		PoolId:    a.cfg.PoolID,
		OrgId:     a.cfg.OrgID,
		Data:      data,
		Timestamp: a.now().Unix(),
	}}})
	switch {
	case sent:
		a.counters.events.Add(1)
	case !a.cfg.Kind.executes():
		s.outbox.add(report{routeEvents, s.httpReport(kind, data), &a.counters.events})
	}
	return sent
}
