package sim

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/mig-controller/mig-controller/gen/go/miglet/commands"
)

const (
	eventRegistered = "runner_registered"
	failures        = 0.1 // of jobs
)

// registered is the runner's registration coming through.
func (s *stream) registered() error {
	a := s.agent
	s.configured, s.registering = true, false
	a.counters.registered.Add(1)
	a.counters.runnersRegistered.Add(1)
	if s.event(eventRegistered, s.registration()) {
		s.proofAt = time.Now()
	}
	if s.state != stateDraining {
		s.changeState(stateIdle)
	}
	if !a.cfg.Kind.namesState() {
		s.agenda.after(a.cfg.Timing.Heartbeat, (*stream).beatAgain)
	}
	s.awaitJob()
	return nil
}

// registration is the data of runner_registered.
func (s *stream) registration() map[string]string {
	data := map[string]string{"runner_url": s.runnerURL, "runner_group": s.runnerGroup}
	if s.agent.cfg.Kind.obeys() {
		data["runner_id"] = strconv.Itoa(1 + s.agent.rng.IntN(1_000_000))
		data["labels"] = strings.Join(s.labels, ",")
	}
	return data
}

func (s *stream) awaitJob() {
	begin := (*stream).startJob
	if !s.agent.cfg.Kind.obeys() {
		begin = (*stream).startOnlyJob
	}
	if every := s.agent.cfg.Timing.JobEvery; every > 0 && !s.drained {
		s.agenda.after(s.agent.sometime(every), begin)
	}
}

// startOnlyJob starts a job as builds in the field see it, in the runner's log:
// without a true id, and without a change of the agent's state.
func (s *stream) startOnlyJob() error {
	a := s.agent
	s.job = &commands.JobInfo{JobId: "job:", Status: "running"}
	s.event("job_started", map[string]string{"job_id": s.job.GetJobId(), "run_id": s.job.GetRunId()})
	s.agenda.after(a.around(a.cfg.Timing.JobLength), (*stream).endOnlyJob)
	return nil
}

func (s *stream) endOnlyJob() error {
	s.event("job_completed", map[string]string{
		"job_id":  s.job.GetJobId(),
		"run_id":  s.job.GetRunId(),
		"success": strconv.FormatBool(!s.agent.chance(failures)),
	})
	s.job = nil
	s.spend()
	return nil
}

// currentJob is the job in a heartbeat. Builds in the field do not know when it
// started.
func (s *stream) currentJob() *commands.JobInfo {
	if s.job == nil || s.agent.cfg.Kind.obeys() {
		return s.job
	}
	return &commands.JobInfo{
		JobId: s.job.GetJobId(), RunId: s.job.GetRunId(), Status: s.job.GetStatus(),
		StartedAt: time.Now().Unix(),
	}
}

func (s *stream) startJob() error {
	a := s.agent
	if s.drained {
		return nil
	}
	run := strconv.FormatUint(1e9+a.rng.Uint64N(9e9), 10)
	s.job = &commands.JobInfo{
		JobId:      "job-" + run,
		RunId:      run,
		Repository: "example/app",
		Branch:     "main",
		Commit:     fmt.Sprintf("%016x%016x%08x", a.rng.Uint64(), a.rng.Uint64(), a.rng.Uint32()),
		Status:     "in_progress",
		StartedAt:  time.Now().Unix(),
	}
	s.event("job_started", map[string]string{
		"job_id":     s.job.GetJobId(),
		"run_id":     s.job.GetRunId(),
		"repository": s.job.GetRepository(),
		"branch":     s.job.GetBranch(),
		"commit":     s.job.GetCommit(),
	})
	s.changeState(stateJobRunning)
	s.agenda.after(a.around(a.cfg.Timing.JobLength), (*stream).endJob)
	return nil
}

func (s *stream) endJob() error {
	job := s.job
	s.job = nil
	success := !s.agent.chance(failures)
	exit := "0"
	if !success {
		exit = "1"
	}
	s.event("job_completed", map[string]string{
		"job_id":    job.GetJobId(),
		"run_id":    job.GetRunId(),
		"success":   strconv.FormatBool(success),
		"exit_code": exit,
		"duration":  strconv.FormatInt(time.Now().Unix()-job.GetStartedAt(), 10),
	})
	if s.state == stateDraining {
		s.agenda.after(s.agent.cfg.Timing.Drain, (*stream).endDrain)
		return nil
	}
	s.changeState(stateIdle)
	s.awaitJob()
	return nil
}
