package sim

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/mig-controller/mig-controller/gen/go/miglet/commands"
)

// registered is the runner's registration coming through.
func (s *stream) registered() error {
	a := s.agent
	s.configured, s.registering = true, false
	a.counters.registered.Add(1)
	a.counters.runnersRegistered.Add(1)
	sent := s.event("runner_registered", map[string]string{
		"runner_url":   s.runnerURL,
		"runner_id":    strconv.Itoa(1 + a.rng.IntN(1_000_000)),
		"runner_group": s.runnerGroup,
		"labels":       strings.Join(s.labels, ","),
	})
	if sent {
		s.proofAt = time.Now()
	}
	if s.state != stateDraining {
		s.changeState(stateIdle)
	}
	s.awaitJob()
	return nil
}

func (s *stream) awaitJob() {
	if every := s.agent.cfg.Timing.JobEvery; every > 0 && !s.drained {
		s.agenda.after(s.agent.sometime(every), (*stream).startJob)
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
	success := !s.agent.chance(0.1)
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
