// Moving disks into Ceph and out of it, which TestInterrupted interrupts.

package vmdisk

import (
	"context"
	"path/filepath"
	"testing"

	"github.com/google/uuid"
	"github.com/vmdisk/vmdisk/domain"
)

var adoptPairs = []reversible{
	{
		setup: func(t *testing.T, _ *Host) fixture {
			id := uuid.NewString()
			return localVM(t, id, "qcow2:"+chained(t, id, blankFile(t), "8M"))
		},
		do:   workflow{name: "adopt", run: adoptPair(AdoptOptions{}), over: domain.ErrExists},
		undo: workflow{name: "undo adopt", run: unadoptPair, over: domain.ErrExists},
	},
	{
		// It has nothing to boot, and QEMU does not mind.
		setup: func(t *testing.T, _ *Host) fixture {
			f := localVM(t, uuid.NewString(), "raw:"+blankFile(t))
			virsh(t, 0, "start", f.VM)
			return f
		},
		do:   workflow{name: "adopt a running machine", run: adoptPair(AdoptOptions{}), over: domain.ErrExists},
		undo: workflow{name: "undo adopt of a running machine", run: unadoptPair, over: domain.ErrExists},
	},
	{
		setup: idlePair("ejected"),
		do:    workflow{name: "eject", run: ejectPair, over: domain.ErrExists},
		undo:  workflow{run: uneject},
	},
	{
		setup: func(t *testing.T, h *Host) fixture {
			f := idlePair("ejected")(t, h)
			virsh(t, 0, "start", f.VM)
			return f
		},
		do:   workflow{name: "eject of a running machine", run: ejectPair, over: domain.ErrExists},
		undo: workflow{run: uneject},
	},
}

// slowAdoption is killed in the middle of its copy.
var slowAdoption = workflow{name: "adopt slowly", run: adoptPair(AdoptOptions{Bandwidth: 1 << 20})}

func adoptPair(o AdoptOptions) func(context.Context, *Host, fixture) error {
	return func(ctx context.Context, h *Host, f fixture) error {
		_, err := h.Adopt(ctx, f.VM, o)
		return err
	}
}

func unadoptPair(ctx context.Context, h *Host, f fixture) error {
	_, err := h.Unadopt(ctx, f.VM, EjectOptions{})
	return err
}

// ejectPair puts the files into the lab's own folder.
func ejectPair(ctx context.Context, h *Host, f fixture) error {
	_, err := h.Eject(ctx, f.VM, EjectOptions{Dir: filepath.Dir(testLab.Guest), Format: "raw"})
	return err
}

func uneject(ctx context.Context, h *Host, f fixture) error {
	if err := adoptPair(AdoptOptions{})(ctx, h, f); err != nil {
		return err
	}
	_, err := h.RemoveAdopted(ctx, f.VM)
	return err
}
