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
	// searched is among how many VMs names like a given one are looked for, and
	// suggested how many are shown at most.
	searched  = 10 * pageSize
	suggested = 3
	// inspected is how many VMs are looked at before something is sent to them.
	inspected = 16
	// typos is how many letters a name that was meant may differ in.
	typos = 2
)

// vmHint says where to look for a VM that the controller does not know, and which
// names are like it.
func (in *invocation) vmHint(ctx context.Context, id string) string {
	if names := in.nearVMs(ctx, id); len(names) > 0 {
		return "Did you mean " + strings.Join(names, ", ") + "?"
	}
	return "migctl vms lists the VMs that the controller has seen."
}

// nearVMs returns the ids of VMs that somebody who typed id may have meant, the
// nearest first.
func (in *invocation) nearVMs(ctx context.Context, id string) []string {
	vms, _, err := vmFilter{}.list(ctx, in, searched)
	if err != nil {
		return nil // The error that is being shown says enough.
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

// checkType returns the error of a type that somebody who meant a known one may
// have typed: the controller would deliver it, and the agent would not obey.
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
		hint: fmt.Sprintf("Did you mean %s? --any-type sends %s all the same.", nearest, printable(kind)),
	}
}

// warn reports those of the VMs that will not act on a command at once: the
// controller accepts commands for VMs that are offline, that it has never seen,
// and whose agents read none. What nobody but a person can make use of is left out
// where none reads it.
func (in *invocation) warn(ctx context.Context, kind string, vms []string) {
	if in.structured() || len(vms) > inspected {
		return
	}
	for _, id := range vms {
		res, err := ask(ctx, in, 0, in.client.GetVM, &migcontrollerv1.GetVMRequest{VmId: id})
		missing := detailOf(err).GetReason() == migcontrollerv1.ErrorReason_ERROR_REASON_NOT_FOUND
		switch {
		case err != nil && !missing:
			return // What follows says what is wrong.
		case readsNoCommands(res.GetVm()):
			fmt.Fprintf(in.stderr, "Warning: the runner of %s is registered, and such an agent reads no commands as a rule\n"+
				"  (nothing acked since): expect %s to end as TIMED_OUT.\n", printable(id), printable(kind))
		case !in.reports:
		case missing:
			fmt.Fprintf(in.stderr, "%s has never been seen: the command waits for it to come.\n", printable(id))
			if names := in.nearVMs(ctx, id); len(names) > 0 {
				fmt.Fprintf(in.stderr, "  Did you mean %s? migctl cancel takes the command back.\n", strings.Join(names, ", "))
			}
		case !res.GetVm().GetConnected():
			fmt.Fprintf(in.stderr, "%s is offline: it gets the command when it comes back.\n", printable(id))
		}
	}
}

// readsNoCommands reports whether a command that is delivered now is likely to be
// left unread: today's agents read none once their runner is registered.
func readsNoCommands(v *migcontrollerv1.VM) bool {
	registration := v.GetRegistration()
	return v.GetConnected() && registration.GetState() == migcontrollerv1.RegistrationState_REGISTRATION_STATE_REGISTERED &&
		!v.GetLastAckAt().AsTime().After(registration.GetRegisteredAt().AsTime())
}
