// The workflows on a machine's own disks that TestInterrupted interrupts.

package vmdisk

import (
	"context"
	"testing"

	"github.com/google/uuid"
	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/domain"
)

var machineDiskPairs = []reversible{
	{
		setup: func(t *testing.T, h *Host) fixture {
			importBlank(t, h, "disks")
			return fixture{VM: name(t), UUID: uuid.NewString()}
		},
		do: workflow{name: "boot with more disks", over: domain.ErrExists, run: bootPair(BootOptions{Image: "disks", NoStart: true,
			Ephemeral: []int64{8 << 20}, Swap: 8 << 20, ConfigDrive: &disk.ConfigDrive{UserData: []byte("#!/bin/sh\n")}})},
		undo: workflow{name: "remove with more disks", run: removePair, over: domain.ErrNotFound},
	},
	{
		setup: idlePair("grown"),
		do: workflow{name: "resize", over: disk.ErrExists, run: func(ctx context.Context, h *Host, f fixture) error {
			_, err := h.ResizeRevertible(ctx, f.VM, 16<<20, false)
			return err
		}},
		undo: workflow{name: "revert resize", over: disk.ErrNotFound, run: func(ctx context.Context, h *Host, f fixture) error {
			_, err := h.RevertResize(ctx, f.VM, false)
			return err
		}},
	},
	{
		setup: idlePair("broken"),
		do: workflow{name: "rescue", over: disk.ErrExists, run: func(ctx context.Context, h *Host, f fixture) error {
			_, err := h.Rescue(ctx, f.VM, RescueOptions{Image: "broken", NoStart: true})
			return err
		}},
		undo: workflow{name: "unrescue", over: domain.ErrNotFound, run: func(ctx context.Context, h *Host, f fixture) error {
			_, err := h.Unrescue(ctx, f.VM, false)
			return err
		}},
	},
	{
		// From the image that the machine has, so that both ways are the same.
		setup: idlePair("old"),
		do:    workflow{name: "rebuild", run: rebuildPair},
		undo:  workflow{run: rebuildPair},
	},
}

// idlePair is a machine that is off, on an image of its own.
func idlePair(image string) func(t *testing.T, h *Host) fixture {
	return func(t *testing.T, h *Host) fixture {
		vm := idle(t, h, image)
		return fixture{VM: vm.Name, UUID: vm.UUID, Image: image}
	}
}

func rebuildPair(ctx context.Context, h *Host, f fixture) error {
	_, err := h.Rebuild(ctx, f.VM, RebuildOptions{Image: f.Image})
	return err
}
