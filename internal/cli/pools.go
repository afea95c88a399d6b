package cli

import (
	"context"
	"maps"
	"slices"
	"strconv"

	migcontrollerv1 "github.com/mig-controller/mig-controller/gen/go/migcontroller/v1"
)

type poolsCmd struct{ vmFilter }

// Help returns the command's help text.
func (poolsCmd) Help() string {
	return examples("IDLE, JOB_RUNNING, SPENT and ERROR count connected VMs only.", "migctl pools", "migctl pools --org tools")
}

// poolCount counts the VMs of one pool by their state.
type poolCount struct {
	Pool       string `json:"poolId"`
	VMs        int    `json:"vms"`
	Connected  int    `json:"connected"`
	Offline    int    `json:"offline"`
	Registered int    `json:"registered"`
	// Statuses counts the connected VMs by the status that their agents report; spent VMs
	// count as spent instead.
	Statuses map[string]int `json:"statuses"`
}

// Run counts VMs by pool.
func (cmd poolsCmd) Run(ctx context.Context, in *invocation) error {
	if err := in.dial(); err != nil {
		return err
	}
	vms, _, err := cmd.list(ctx, in, 0)
	if err != nil {
		return err
	}
	pools := countPools(vms)
	if in.structured() {
		return in.writeValue(pools)
	}
	t := table{columns: []column{
		{title: "POOL"},
		{title: "VMS", drop: 4},
		{title: "CONNECTED"},
		{title: "OFFLINE"},
		{title: "REGISTERED", drop: 1},
		{title: "IDLE", drop: 3},
		{title: "JOB_RUNNING", drop: 5},
		{title: "SPENT", drop: 2},
		{title: "ERROR"},
	}}
	for _, p := range pools {
		t.add(
			plain(p.Pool), count(p.VMs, neutral), count(p.Connected, neutral), count(p.Offline, bad), count(p.Registered, neutral),
			count(p.Statuses["idle"], neutral), count(p.Statuses["job_running"], neutral),
			count(p.Statuses["spent"], neutral), count(p.Statuses["error"], bad),
		)
	}
	in.writeTable(t, noVM)
	return nil
}

// count shows a number, in the given tone unless it is 0.
func count(n int, t tone) cell {
	if n == 0 {
		t = neutral
	}
	return cell{text: strconv.Itoa(n), tone: t}
}

// countPools returns the counts of each pool, sorted by pool. The statuses of offline VMs
// are not counted.
func countPools(vms []*migcontrollerv1.VM) []poolCount {
	byName := map[string]*poolCount{}
	for _, v := range vms {
		p, known := byName[v.GetPoolId()]
		if !known {
			p = &poolCount{Pool: v.GetPoolId(), Statuses: map[string]int{}}
			byName[v.GetPoolId()] = p
		}
		p.VMs++
		if v.GetRegistration().GetState() == migcontrollerv1.RegistrationState_REGISTRATION_STATE_REGISTERED {
			p.Registered++
		}
		if !v.GetConnected() {
			p.Offline++
			continue
		}
		p.Connected++
		switch {
		case v.GetSpentAt() != nil:
			p.Statuses["spent"]++
		case v.GetStatus() != "":
			p.Statuses[v.GetStatus()]++
		}
	}
	pools := make([]poolCount, 0, len(byName))
	for _, name := range slices.Sorted(maps.Keys(byName)) {
		pools = append(pools, *byName[name])
	}
	return pools
}
