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
	// searchLimit is how many VMs are searched for similar ids, and maxSuggestions how many
	// similar ids are suggested.
	searchLimit    = 10 * pageSize
	maxSuggestions = 3
	// maxInspected is the largest number of VMs whose state is checked before a command is
	// sent to them.
	maxInspected = 16
	// maxDistance is the maximum edit distance of similar names.
	maxDistance = 2
)

// vmHint returns a hint for an unknown VM id: similar ids, or how to list all.
func (in *invocation) vmHint(ctx context.Context, id string) string {
	if names := in.similarVMs(ctx, id); len(names) > 0 {
		return "Did you mean " + strings.Join(names, ", ") + "?"
	}
	return "migctl vms lists the VMs that the controller has seen."
}

// similarVMs returns the VM ids that are similar to id, most similar first.
func (in *invocation) similarVMs(ctx context.Context, id string) []string {
	vms, _, err := vmFilter{}.list(ctx, in, searchLimit)
	if err != nil {
		return nil // A suggestion is optional.
	}
	byDistance := make([][]string, maxDistance+1)
	for _, v := range vms {
		if d := edlib.LevenshteinDistance(strings.ToLower(v.GetVmId()), strings.ToLower(id)); d <= maxDistance {
			byDistance[d] = append(byDistance[d], printable(v.GetVmId()))
		}
	}
	similar := slices.Concat(byDistance...)
	return similar[:min(len(similar), maxSuggestions)]
}

// commandTypes are the types that the agent protocol defines; agents may support others.
var commandTypes = []string{"drain", "register_runner", "set_log_level", "shutdown", "update_config"}

// checkType returns an error for a type that looks like a misspelt known type. The
// controller would accept it, but the agent would not execute it.
func checkType(kind string) error {
	if slices.Contains(commandTypes, kind) {
		return nil
	}
	cleaned := strings.ReplaceAll(strings.ToLower(strings.TrimSpace(kind)), "-", "_")
	best, bestDistance := "", maxDistance+1
	for _, known := range commandTypes {
		if d := edlib.LevenshteinDistance(cleaned, known); d < bestDistance {
			best, bestDistance = known, d
		}
	}
	if best == "" {
		return nil
	}
	return &failure{
		code: exitUsage, text: fmt.Sprintf("%q is not a known type of command", kind),
		hint: fmt.Sprintf("Did you mean %s? --any-type sends %s anyway.", best, printable(kind)),
	}
}

// warn reports VMs that will not execute a command immediately: the controller accepts
// commands for VMs that are offline, that have never connected, or whose agents read no
// commands. Except for the last, these notes are only printed on a terminal.
func (in *invocation) warn(ctx context.Context, kind string, vms []string) {
	if in.structured() || len(vms) > maxInspected {
		return
	}
	for _, id := range vms {
		res, err := callRPC(ctx, in, 0, in.client.GetVM, &migcontrollerv1.GetVMRequest{VmId: id})
		missing := detailOf(err).GetReason() == migcontrollerv1.ErrorReason_ERROR_REASON_NOT_FOUND
		switch {
		case err != nil && !missing:
			return // The request that follows reports it.
		case readsNoCommands(res.GetVm()):
			fmt.Fprintf(in.stderr, "Warning: the runner of %s is registered, and its agent has acked nothing since.\n"+
				"  Such an agent usually reads no commands: expect %s to end as TIMED_OUT.\n", printable(id), printable(kind))
		case !in.stderrTTY:
		case missing:
			fmt.Fprintf(in.stderr, "%s has never connected: the command waits until it does.\n", printable(id))
			if names := in.similarVMs(ctx, id); len(names) > 0 {
				fmt.Fprintf(in.stderr, "  Did you mean %s? If so, cancel the command: migctl cancel ID\n", strings.Join(names, ", "))
			}
		case !res.GetVm().GetConnected():
			fmt.Fprintf(in.stderr, "%s is offline: it gets the command when it reconnects.\n", printable(id))
		}
	}
}

// readsNoCommands reports whether the agent will probably not read a command that is
// delivered now: current agents read none once their runner is registered.
func readsNoCommands(v *migcontrollerv1.VM) bool {
	registration := v.GetRegistration()
	return v.GetConnected() && registration.GetState() == migcontrollerv1.RegistrationState_REGISTRATION_STATE_REGISTERED &&
		!v.GetLastAckAt().AsTime().After(registration.GetRegisteredAt().AsTime())
}
