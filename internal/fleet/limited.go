package fleet

// Limited is an input of a caller who is limited to some pools. It returns ErrNotFound, and
// changes nothing, unless the VM is in one of them: for a VM in another pool as for one that
// was never seen. The VM's pool is that of the state which the input is applied to.
type Limited struct {
	Input
	// In reports whether the caller may see and act on the VMs of a pool. It is not called
	// for a VM without one, which is in nobody's pools.
	In func(pool string) bool
}

// Limit returns the input, limited to the pools that in returns true for; nil means all VMs.
func Limit(input Input, in func(pool string) bool) Input {
	if in == nil {
		return input
	}
	return Limited{input, in}
}

func (l Limited) reduce(r *reduction) error {
	if !r.State.VM.In(l.In) {
		return ErrNotFound
	}
	r.VMChecked = true
	return l.Input.reduce(r)
}

// In reports whether the VM is in one of the pools that in returns true for.
func (v VM) In(in func(pool string) bool) bool { return v.Pool != "" && in(v.Pool) }
