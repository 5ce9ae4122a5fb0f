// Moving disks to another pool and back, which TestInterrupted interrupts.

package vmdisk

import (
	"context"
	"errors"
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
	{
		setup: farPair(false),
		do:    workflow{name: "move to another cluster", run: farMove, over: domain.ErrExists},
		undo:  workflow{run: farBack},
	},
	{
		setup: farPair(true),
		do:    workflow{name: "move of a running machine to another cluster", run: farMove, over: domain.ErrExists},
		undo:  workflow{run: farBack},
	},
}

func farPair(running bool) func(t *testing.T, h *Host) fixture {
	return func(t *testing.T, h *Host) fixture {
		there := farLab(t)
		f := idlePair("moved")(t, h)
		f.Far = there.Conf
		if running {
			_, err := h.Start(t.Context(), f.VM)
			must(t, err)
		}
		return f
	}
}

func farMove(ctx context.Context, h *Host, f fixture) error {
	return movePair("vda", disk.VMPool, into(f.Far))(ctx, h, f)
}

// farBack brings a disk back that is in the other cluster.
func farBack(ctx context.Context, _ *Host, f fixture) error {
	far, err := Open(ctx, farConfig(0, f.Far))
	if err != nil {
		return err
	}
	_, err = far.MoveDisk(ctx, f.VM, "vda", disk.VMPool, into(testLab.Conf))
	return errors.Join(err, far.Close())
}

// slowMove is killed in the middle of its copy.
var slowMove = workflow{name: "move slowly", run: movePair("vda", otherPool, MoveOptions{Bandwidth: 1 << 20})}

func movePair(target, pool string, o MoveOptions) func(context.Context, *Host, fixture) error {
	return func(ctx context.Context, h *Host, f fixture) error {
		_, err := h.MoveDisk(ctx, f.VM, target, pool, o)
		return err
	}
}
