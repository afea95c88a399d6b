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
	exitCode        = "exit_code"
	eventCrashed    = "runner_crashed"
	failures        = 0.1 // of jobs

	// exitDelay is how long a process that exits keeps running, to send its last report.
	exitDelay = 100 * time.Millisecond
)

// registered completes the runner's registration.
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
	if !a.cfg.Kind.reportsState() {
		s.agenda.after(a.cfg.Timing.Heartbeat, (*stream).beatAgain)
	}
	if wait := a.cfg.Quirks.RestartRegistered; wait > 0 && !a.restarted {
		a.restarted = true
		s.agenda.after(wait, func(*stream) error { return errRestart })
		return nil
	}
	s.awaitJob()
	return nil
}

// failsToRegister decides whether the next registration fails.
func (a *Agent) failsToRegister() bool {
	q := a.cfg.Quirks
	a.registrations++
	return a.registrations <= q.FirstRegistrationsFail || a.chance(q.FailedRegistrations)
}

// registrationFailed is what an agent does when its runner cannot be configured or started:
// it reports that, if it can before its process ends.
func (s *stream) registrationFailed() error {
	s.agent.counters.registerFailures.Add(1)
	s.changeState(stateError)
	s.agenda.after(exitDelay, func(*stream) error { return errExit })
	return nil
}

// registration is the data of runner_registered.
func (s *stream) registration() map[string]string {
	data := map[string]string{"runner_url": s.runnerURL, "runner_group": s.runnerGroup}
	if s.agent.cfg.Kind.executes() {
		data["runner_id"] = strconv.Itoa(1 + s.agent.rng.IntN(1_000_000))
		data["labels"] = strings.Join(s.labels, ",")
	}
	return data
}

func (s *stream) awaitJob() {
	begin := (*stream).startJob
	if !s.agent.cfg.Kind.executes() {
		begin = (*stream).startOnlyJob
	}
	if every := s.agent.cfg.Timing.JobEvery; every > 0 && !s.drained {
		s.agenda.after(s.agent.sometime(every), begin)
	}
}

// startOnlyJob starts a job as builds in the field see it, in the runner's log: without its
// real id, and without a change of the agent's state.
func (s *stream) startOnlyJob() error {
	s.job = &commands.JobInfo{JobId: "job:", Status: "running"}
	s.event("job_started", map[string]string{"job_id": s.job.GetJobId(), "run_id": s.job.GetRunId()})
	s.endLater((*stream).endOnlyJob, (*stream).crashOnlyRunner)
	return nil
}

// endLater schedules the end of a job, and what happens during it.
func (s *stream) endLater(end, crash task) {
	a := s.agent
	length := a.around(a.cfg.Timing.JobLength)
	if a.chance(a.cfg.Quirks.RunnerCrashes) {
		end = crash
	}
	if a.chance(a.cfg.Quirks.RepeatedStarts) {
		s.agenda.after(length/2, (*stream).startAgain)
	}
	s.agenda.after(length, end)
}

// crashed reports that the runner ended in the middle of its job.
func (s *stream) crashed() {
	s.agent.counters.runnerCrashes.Add(1)
	s.job = nil
	s.event(eventCrashed, map[string]string{exitCode: "1"})
}

func (s *stream) crashOnlyRunner() error {
	s.crashed()
	s.spend()
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

// currentJob is the job in a heartbeat. Builds in the field do not know its start time.
func (s *stream) currentJob() *commands.JobInfo {
	if s.job == nil || s.agent.cfg.Kind.executes() {
		return s.job
	}
	return &commands.JobInfo{
		JobId: s.job.GetJobId(), RunId: s.job.GetRunId(), Status: s.job.GetStatus(),
		StartedAt: s.agent.now().Unix(),
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
		StartedAt:  a.now().Unix(),
	}
	s.event("job_started", map[string]string{
		"job_id":     s.job.GetJobId(),
		"run_id":     s.job.GetRunId(),
		"repository": s.job.GetRepository(),
		"branch":     s.job.GetBranch(),
		"commit":     s.job.GetCommit(),
	})
	s.changeState(stateJobRunning)
	s.endLater((*stream).endJob, (*stream).crashRunner)
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
		"job_id":   job.GetJobId(),
		"run_id":   job.GetRunId(),
		"success":  strconv.FormatBool(success),
		exitCode:   exit,
		"duration": strconv.FormatInt(s.agent.now().Unix()-job.GetStartedAt(), 10),
	})
	return s.afterJob()
}

// crashRunner ends the job of an ideal agent, which starts another runner.
func (s *stream) crashRunner() error {
	s.crashed()
	return s.afterJob()
}

func (s *stream) afterJob() error {
	if s.state == stateDraining {
		s.agenda.after(s.agent.cfg.Timing.Drain, (*stream).endDrain)
		return nil
	}
	s.changeState(stateIdle)
	s.awaitJob()
	return nil
}
