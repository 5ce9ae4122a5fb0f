// The workflows on volumes that TestInterrupted interrupts.

package vmdisk

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/vmdisk/vmdisk/disk"
)

var volumePairs = []reversible{
	{
		setup: madeVolume,
		do:    workflow{name: "create volume", run: createVolumePair, over: disk.ErrExists},
		undo:  workflow{name: "remove volume", run: removeVolumePair, over: disk.ErrNotFound},
	},
	{
		setup: madeVolume,
		do: workflow{name: "create volume from an image", over: disk.ErrExists,
			run: clonePair(CloneOptions{Image: "guest", Size: 2 * disk.GiB})},
		undo: workflow{run: removeVolumePair},
	},
	{
		setup: sourceVolume,
		do: workflow{name: "create volume from a volume", over: disk.ErrExists,
			run: clonePair(CloneOptions{Volume: "the source", Size: 2 * disk.GiB})},
		undo: workflow{name: "remove volume from a volume", run: removeVolumePair, over: disk.ErrNotFound},
	},
	{
		setup: sourceVolume,
		do: workflow{name: "copy volume", over: disk.ErrExists,
			run: clonePair(CloneOptions{Volume: "the source", Flatten: true})},
		undo: workflow{run: removeVolumePair},
	},
	{
		setup: sourceVolume,
		do: workflow{name: "snapshot", over: disk.ErrExists, run: func(ctx context.Context, h *Host, f fixture) error {
			_, err := h.CreateVolumeSnapshot(ctx, f.Source, "pair")
			return err
		}},
		undo: workflow{name: "remove snapshot", over: disk.ErrNotFound, run: func(ctx context.Context, h *Host, f fixture) error {
			return h.RemoveVolumeSnapshot(ctx, f.Source+"@pair")
		}},
	},
	{
		setup: sourceVolume,
		do:    workflow{name: "grow volume", run: resizePair(2 * disk.GiB)},
		undo:  workflow{name: "shrink volume", run: resizePair(disk.GiB)},
	},
	{
		// A QEMU has it open, whatever its guest does.
		setup: func(t *testing.T, h *Host) fixture {
			f := sourceVolume(t, h)
			vm := bootOf(t, h, BootOptions{Image: "guest", Memory: guestMemory, NoStart: true})
			_, err := h.Attach(t.Context(), vm.Name, f.Source, AttachOptions{})
			must(t, err)
			t.Cleanup(func() { removeAnywhere(t, vm.UUID) })
			_, err = h.Start(t.Context(), vm.Name)
			must(t, err)
			f.VM = vm.Name
			return f
		},
		do: workflow{name: "grow attached volume", run: resizePair(2 * disk.GiB)},
		undo: workflow{run: func(ctx context.Context, h *Host, f fixture) error {
			_, err := h.Stop(ctx, f.VM, true)
			if err == nil {
				err = resizePair(disk.GiB)(ctx, h, f)
			}
			if err == nil {
				_, err = h.Start(ctx, f.VM)
			}
			return err
		}},
	},
	{
		// Between the steps it is as small as its snapshot.
		setup: func(t *testing.T, h *Host) fixture {
			f := sourceVolume(t, h)
			must(t, resizePair(2*disk.GiB)(t.Context(), h, f))
			return f
		},
		do: workflow{name: "roll back", run: func(ctx context.Context, h *Host, f fixture) error {
			_, err := h.RollbackVolume(ctx, f.Source+"@"+f.Source)
			return err
		}},
		undo: workflow{run: resizePair(2 * disk.GiB)},
	},
	{
		setup: func(t *testing.T, h *Host) fixture {
			v := volume(t, h)
			t.Cleanup(func() { _, _ = h.RestoreVolume(context.WithoutCancel(t.Context()), v.ID) })
			return fixture{Volume: v.ID}
		},
		do: workflow{name: "trash", over: disk.ErrNotFound, run: trashPair(time.Hour)},
		undo: workflow{name: "restore", over: disk.ErrNotFound, run: func(ctx context.Context, h *Host, f fixture) error {
			_, err := h.RestoreVolume(ctx, f.Volume)
			return err
		}},
	},
	{
		setup: keptVolume,
		do:    workflow{name: "remove volume with what was kept for it", run: removeVolumePair, over: disk.ErrNotFound},
		undo:  workflow{run: makeKept},
	},
	{
		setup: keptVolume,
		do: workflow{name: "flatten", over: disk.ErrInvalid, run: func(ctx context.Context, h *Host, f fixture) error {
			_, err := h.FlattenVolume(ctx, f.Volume)
			return err
		}},
		undo: workflow{run: func(ctx context.Context, h *Host, f fixture) error {
			err := h.RemoveVolume(ctx, f.Volume)
			if err == nil {
				err = makeKept(ctx, h, f)
			}
			return err
		}},
	},
	{
		setup: func(t *testing.T, h *Host) fixture {
			f := keptVolume(t, h)
			must(t, trashPair(0)(t.Context(), h, f))
			t.Cleanup(func() { _, _ = h.PurgeVolumes(context.WithoutCancel(t.Context())) })
			return f
		},
		do: workflow{name: "purge", over: disk.ErrNotFound, run: func(ctx context.Context, h *Host, f fixture) error {
			_, err := h.PurgeVolume(ctx, f.Volume, true)
			return err
		}},
		undo: workflow{run: func(ctx context.Context, h *Host, f fixture) error {
			err := makeKept(ctx, h, f)
			if err == nil {
				err = trashPair(0)(ctx, h, f)
			}
			return err
		}},
	},
	{
		setup: func(t *testing.T, h *Host) fixture {
			f := madeVolume(t, h)
			must(t, trashedPair(t.Context(), h, f))
			t.Cleanup(func() { _, _ = h.PurgeVolumes(context.WithoutCancel(t.Context())) })
			return f
		},
		do: workflow{name: "purge all", run: func(ctx context.Context, h *Host, _ fixture) error {
			_, err := h.PurgeVolumes(ctx)
			return err
		}},
		undo: workflow{run: trashedPair},
	},
}

// madeVolume names a volume that comes and goes, and one to make it from.
func madeVolume(t *testing.T, h *Host) fixture {
	id := "pair-" + uuid.NewString()[:8]
	keepFor(t, h, id+"-source", id) // the volume goes before what it is made from
	return fixture{Volume: id, Source: id + "-source"}
}

// sourceVolume has a user's snapshot of its own name.
func sourceVolume(t *testing.T, h *Host) fixture {
	f := madeVolume(t, h)
	_, err := h.CreateVolume(t.Context(), f.Source, disk.GiB)
	must(t, err)
	_, err = h.CreateVolumeSnapshot(t.Context(), f.Source, f.Source)
	must(t, err)
	t.Cleanup(func() {
		ctx := context.WithoutCancel(t.Context())
		must(t, gone(h.RemoveVolume(ctx, f.Volume)))
		must(t, gone(h.RemoveVolumeSnapshot(ctx, f.Source+"@"+f.Source)))
	})
	return f
}

// keptVolume is a volume from one that was deleted and is kept for it.
func keptVolume(t *testing.T, h *Host) fixture {
	f := madeVolume(t, h)
	must(t, makeKept(t.Context(), h, f))
	return f
}

// makeKept makes it, with a snapshot of a backup that is gone.
func makeKept(ctx context.Context, h *Host, f fixture) error {
	cluster, n, err := h.volumeName(ctx, f.Volume)
	if err == nil {
		err = cluster.Absent(ctx, n)
	}
	if err == nil {
		_, err = h.CreateVolume(ctx, f.Source, disk.GiB)
	}
	if err == nil {
		_, err = h.CloneVolume(ctx, CloneOptions{ID: f.Volume, Volume: f.Source})
	}
	if err == nil {
		n.Snap = "backup.0a1b.snap.1700000000.5"
		err = cluster.CreateSnapshot(ctx, n)
	}
	if err == nil {
		n, err = disk.ParseVolume(f.Source)
	}
	if err != nil {
		return err
	}
	return cluster.Rename(ctx, n, disk.Name{Pool: n.Pool, Image: n.Image + ".deleted"})
}

func createVolumePair(ctx context.Context, h *Host, f fixture) error {
	_, err := h.CreateVolume(ctx, f.Volume, disk.GiB)
	return err
}

func removeVolumePair(ctx context.Context, h *Host, f fixture) error {
	return h.RemoveVolume(ctx, f.Volume)
}

func clonePair(o CloneOptions) func(context.Context, *Host, fixture) error {
	return func(ctx context.Context, h *Host, f fixture) error {
		if o.ID = f.Volume; o.Volume != "" {
			o.Volume = f.Source
		}
		_, err := h.CloneVolume(ctx, o)
		return err
	}
}

func resizePair(size int64) func(context.Context, *Host, fixture) error {
	return func(ctx context.Context, h *Host, f fixture) error {
		v, err := h.ResizeVolume(ctx, f.Source, VolumeSize{Size: size, AllowShrink: true})
		if err == nil && v.Size != size {
			err = fmt.Errorf("it is %d bytes and not %d", v.Size, size)
		}
		return err
	}
}

func trashPair(keep time.Duration) func(context.Context, *Host, fixture) error {
	return func(ctx context.Context, h *Host, f fixture) error {
		_, err := h.TrashVolume(ctx, f.Volume, keep)
		return err
	}
}

func trashedPair(ctx context.Context, h *Host, f fixture) error {
	return errors.Join(createVolumePair(ctx, h, f), trashPair(0)(ctx, h, f))
}
