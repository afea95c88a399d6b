package sim

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

const (
	announceTries   = 5   // then the process exits
	announceBackoff = 1.5 // each wait is longer by this factor
)

// started is the answer to vm_started.
type started struct {
	Status       string   `json:"status"`
	Acknowledged bool     `json:"acknowledged"`
	Token        string   `json:"registration_token"`
	URL          string   `json:"runner_url"`
	Group        string   `json:"runner_group"`
	Labels       []string `json:"labels"`
}

// announce sends vm_started over HTTP until it is acknowledged. It returns errExit when it
// gives up, and errRestart or ctx's error if one of these occurs first.
func (a *Agent) announce(ctx context.Context) (started, error) {
	wait := max(a.cfg.Timing.RetryWait, time.Millisecond)
	for try := range announceTries {
		if try > 0 {
			if err := a.pause(ctx, wait); err != nil {
				return started{}, err
			}
			wait = time.Duration(float64(wait) * announceBackoff)
		}
		answer, err := a.postStarted(ctx)
		if err == nil {
			a.counters.vmStarted.Add(1)
			a.counters.events.Add(1)
			a.counters.posts.Add(1)
			return answer, nil
		}
		if ctx.Err() == nil {
			a.counters.errors.add(eventVMStarted)
			a.log.Debug("vm_started was not acknowledged", keyError, err)
		}
	}
	a.counters.restarts.Add(1)
	return started{}, errExit
}

func (a *Agent) postStarted(ctx context.Context) (started, error) {
	text, err := a.post(ctx, routeEvents, a.startedEvent())
	if err != nil {
		return started{}, err
	}
	var answer started
	if err := json.Unmarshal(text, &answer); err != nil {
		return started{}, fmt.Errorf("decode the answer to vm_started: %w", err)
	}
	if !answer.Acknowledged && answer.Status != "acknowledged" && answer.Status != "received" {
		return started{}, errors.New("post vm_started: not acknowledged")
	}
	return answer, nil
}

func (a *Agent) startedEvent() map[string]any {
	body := a.httpEvent(eventVMStarted)
	body["version"], body["build_time"] = devVersion, "unknown"
	body["machine_type"], body["region"] = "e2-standard-2", "europe-west1"
	body["cpu"], body["memory"], body["disk"] = 2, memoryTotal>>20, diskTotal>>30
	return body
}
