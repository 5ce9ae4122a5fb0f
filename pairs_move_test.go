// Moving disks to another pool and back, which TestInterrupted interrupts.

package vmdisk

import (
	"context"
	"testing"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/domain"
)

var movePairs = []reversible{
	{
		setup: func(t *testing.T, h *Host) fixture {
			withOtherPool(t)
			return idlePair("moved")(t, h)
		},
		do:   workflow{name: "move", run: movePair("vda", otherPool, MoveOptions{}), over: domain.ErrExists},
		undo: workflow{run: movePair("vda", disk.VMPool, MoveOptions{})},
	},
	{
		// It has nothing to boot, and QEMU does not mind.
		setup: func(t *testing.T, h *Host) fixture {
			withOtherPool(t)
			v := volume(t, h) // which goes after the machine
			f := idlePair("moved")(t, h)
			_, err := h.Attach(t.Context(), f.VM, v.ID, AttachOptions{})
			must(t, err)
			_, err = h.Start(t.Context(), f.VM)
			must(t, err)
			return f
		},
		do:   workflow{name: "move of a running machine", run: movePair("vdb", otherPool, MoveOptions{}), over: domain.ErrExists},
		undo: workflow{run: movePair("vdb", disk.VolumePool, MoveOptions{})},
	},
}

// slowMove is killed in the middle of its copy.
var slowMove = workflow{name: "move slowly", run: movePair("vda", otherPool, MoveOptions{Bandwidth: 1 << 20})}

func movePair(target, pool string, o MoveOptions) func(context.Context, *Host, fixture) error {
	return func(ctx context.Context, h *Host, f fixture) error {
		_, err := h.MoveDisk(ctx, f.VM, target, pool, o)
		return err
	}
}
