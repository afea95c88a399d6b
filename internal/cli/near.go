package cli

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/hbollon/go-edlib"

	migcontrollerv1 "github.com/mig-controller/mig-controller/gen/go/migcontroller/v1"
)

const (
	// searched is how many VMs are searched for names similar to a given one, and
	// suggested how many of these are shown at most.
	searched  = 10 * pageSize
	suggested = 3
	// inspected is the largest number of VMs that are inspected before a command is sent
	// to them.
	inspected = 16
	// typos is in how many letters a similar name may differ.
	typos = 2
)

// vmHint suggests VMs with names similar to one that the controller does not know, or
// where to look for it.
func (in *invocation) vmHint(ctx context.Context, id string) string {
	if names := in.nearVMs(ctx, id); len(names) > 0 {
		return "Did you mean " + strings.Join(names, ", ") + "?"
	}
	return "migctl vms lists the VMs that the controller has seen."
}

// nearVMs returns the ids of VMs that are similar to id, the most similar first.
func (in *invocation) nearVMs(ctx context.Context, id string) []string {
	vms, _, err := vmFilter{}.list(ctx, in, searched)
	if err != nil {
		return nil // The error that is being reported says enough.
	}
	byDistance := make([][]string, typos+1)
	for _, v := range vms {
		if d := edlib.LevenshteinDistance(strings.ToLower(v.GetVmId()), strings.ToLower(id)); d <= typos {
			byDistance[d] = append(byDistance[d], printable(v.GetVmId()))
		}
	}
	near := slices.Concat(byDistance...)
	return near[:min(len(near), suggested)]
}

// commandTypes are those that the agents' contract names; an agent may know more.
var commandTypes = []string{"drain", "register_runner", "set_log_level", "shutdown", "update_config"}

// checkType returns an error for a type that looks like a misspelt known one: the
// controller would deliver it, and the agent would not obey.
func checkType(kind string) error {
	if slices.Contains(commandTypes, kind) {
		return nil
	}
	folded := strings.ReplaceAll(strings.ToLower(strings.TrimSpace(kind)), "-", "_")
	nearest, least := "", typos+1
	for _, known := range commandTypes {
		if d := edlib.LevenshteinDistance(folded, known); d < least {
			nearest, least = known, d
		}
	}
	if nearest == "" {
		return nil
	}
	return &failure{
		code: exitUsage, text: fmt.Sprintf("%q is not a known type of command", kind),
		hint: fmt.Sprintf("Did you mean %s? --any-type sends %s anyway.", nearest, printable(kind)),
	}
}

// warn reports the VMs that will not act on a command at once: the controller accepts
// commands for VMs that are offline, that it has never seen, and whose agents read none.
// Notes that only help a person are printed on a terminal only.
func (in *invocation) warn(ctx context.Context, kind string, vms []string) {
	if in.structured() || len(vms) > inspected {
		return
	}
	for _, id := range vms {
		res, err := ask(ctx, in, 0, in.client.GetVM, &migcontrollerv1.GetVMRequest{VmId: id})
		missing := detailOf(err).GetReason() == migcontrollerv1.ErrorReason_ERROR_REASON_NOT_FOUND
		switch {
		case err != nil && !missing:
			return // The request that follows will report it.
		case readsNoCommands(res.GetVm()):
			fmt.Fprintf(in.stderr, "Warning: the runner of %s is registered, and its agent has acked nothing since.\n"+
				"  Such an agent usually reads no commands: expect %s to end as TIMED_OUT.\n", printable(id), printable(kind))
		case !in.reports:
		case missing:
			fmt.Fprintf(in.stderr, "%s has never connected: the command waits until it does.\n", printable(id))
			if names := in.nearVMs(ctx, id); len(names) > 0 {
				fmt.Fprintf(in.stderr, "  Did you mean %s? If so, cancel the command: migctl cancel ID\n", strings.Join(names, ", "))
			}
		case !res.GetVm().GetConnected():
			fmt.Fprintf(in.stderr, "%s is offline: it gets the command when it reconnects.\n", printable(id))
		}
	}
}

// readsNoCommands reports whether the agent will probably not read a command that is
// delivered now: today's agents read none once their runner is registered.
func readsNoCommands(v *migcontrollerv1.VM) bool {
	registration := v.GetRegistration()
	return v.GetConnected() && registration.GetState() == migcontrollerv1.RegistrationState_REGISTRATION_STATE_REGISTERED &&
		!v.GetLastAckAt().AsTime().After(registration.GetRegisteredAt().AsTime())
}
