package measure

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os/exec"
	"strconv"
	"time"

	"github.com/mig-controller/mig-controller/bench/internal/load"
	"github.com/mig-controller/mig-controller/bench/internal/result"
	"github.com/mig-controller/mig-controller/bench/internal/target"
)

// stormWithin is how long the VMs may take to reconnect.
const stormWithin = 2 * time.Minute

// storm measures how long operators' calls take while all VMs reconnect after kill -9.
func (b *Bench) storm(ctx context.Context, kind target.Kind, vms int) (Values, error) {
	first, err := b.fresh(ctx, kind)
	if err != nil {
		return nil, err
	}
	defer first.Kill()
	f, err := load.NewFieldFleet(first.Addr, first.TLS, fleetName, vms)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	watched, stop := first.Watch(ctx)
	defer stop()
	if err := connectAll(watched, first, f); err != nil {
		return nil, err
	}
	if err := caughtUp(watched, first); err != nil {
		return nil, err
	}
	began := time.Now()
	first.Kill()
	second, err := b.Programs.StartIn(ctx, kind, first.Dir, first.Ports())
	if err != nil {
		return nil, err
	}
	defer second.Kill()
	serving := time.Since(began)
	watched, stop = second.Watch(ctx)
	defer stop()
	v, err := b.callWhile(watched, second, vms, func() error {
		_, err := awaitSessions(watched, second, int64(vms))
		return err
	})
	if err != nil {
		return nil, err
	}
	v["serving_seconds"] = serving.Seconds()
	v["seconds"] += serving.Seconds()
	if n := f.Registrations(); n != int64(vms) {
		return nil, fmt.Errorf("%d VMs received %d commands register_runner: one was registered again", vms, n)
	}
	return v, nil
}

// callWhile makes operators' calls until fn returns. They are made by another process: in
// this one they would wait for the VMs, too.
func (b *Bench) callWhile(ctx context.Context, s *target.Server, vms int, fn func() error) (Values, error) {
	//nolint:gosec // the program is this one
	caller := exec.CommandContext(ctx, b.Programs.Bench, "call", "-addr", s.Web(), "-fleet", fleetName,
		"-vms", strconv.Itoa(vms), "-rate", strconv.Itoa(b.Sizes.StormRate), "-for", (stormWithin + time.Minute).String())
	var out, failure bytes.Buffer
	caller.Stdout, caller.Stderr = &out, &failure
	until, err := caller.StdinPipe()
	if err != nil {
		return nil, err
	}
	began := time.Now()
	if err := caller.Start(); err != nil {
		return nil, err
	}
	err = fn()
	took := time.Since(began)
	_ = until.Close() // it ends
	if werr := caller.Wait(); err == nil && werr != nil {
		err = fmt.Errorf("calls of operators: %w: %s", werr, bytes.TrimSpace(failure.Bytes()))
	}
	if err != nil {
		return nil, err
	}
	return callValues(&out, took)
}

// callValues returns the percentiles of the calls.
func callValues(out io.Reader, took time.Duration) (Values, error) {
	var t load.CallTimes
	if err := json.NewDecoder(out).Decode(&t); err != nil {
		return nil, fmt.Errorf("read the times of the calls: %w", err)
	}
	v := Values{"seconds": took.Seconds(), "calls": float64(len(t.Send) + len(t.Dial) + len(t.List))}
	for name, ms := range map[string][]float64{"send": t.Send, "dial": t.Dial, "list": t.List} {
		v[name+"_p50_ms"], v[name+"_p99_ms"] = result.Percentile(ms, 50), result.Percentile(ms, 99)
		v[name+"_max_ms"] = result.Percentile(ms, 100)
	}
	return v, nil
}
