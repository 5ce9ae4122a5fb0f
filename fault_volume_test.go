// What the fault tests work on: volumes.

package vmdisk

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/vmdisk/vmdisk/disk"
)

// sourceVolume has a user's snapshot, fault-source@fault.
func sourceVolume(t *testing.T, h *Host) {
	_, err := h.CreateVolume(t.Context(), "fault-source", disk.GiB)
	must(t, err)
	keepFor(t, h, "fault-source")
	snapshotted(t, h, "fault-source", "fault")
}

func prepareClone(o CloneOptions) func(t *testing.T, h *Host) (work, reverse func() error) {
	return func(t *testing.T, h *Host) (work, reverse func() error) {
		if o.Image == "" {
			sourceVolume(t, h)
		}
		o.ID = "fault"
		work = func() error { _, err := h.CloneVolume(t.Context(), o); return err }
		return work, func() error { return h.RemoveVolume(t.Context(), "fault") }
	}
}

func prepareSnapshot(t *testing.T, h *Host) (work, reverse func() error) {
	sourceVolume(t, h)
	work = func() error { _, err := h.CreateVolumeSnapshot(t.Context(), "fault-source", "other"); return err }
	return work, func() error { return h.RemoveVolumeSnapshot(t.Context(), "fault-source@other") }
}

func prepareResizeVolume(t *testing.T, h *Host) (work, reverse func() error) {
	sourceVolume(t, h)
	to := func(size int64) func() error {
		return func() error {
			v, err := h.ResizeVolume(t.Context(), "fault-source", VolumeSize{Size: size, AllowShrink: true})
			if err == nil && v.Size != size {
				err = fmt.Errorf("it is %d bytes and not %d", v.Size, size)
			}
			return err
		}
	}
	return to(2 * disk.GiB), to(disk.GiB)
}

// prepareRollback rolls a volume back that is larger than its snapshot. Between the
// steps it is too small; the error says how to finish.
func prepareRollback(t *testing.T, h *Host) (work, reverse func() error) {
	sourceVolume(t, h)
	grow := func() error {
		_, err := h.ResizeVolume(t.Context(), "fault-source", VolumeSize{Size: 2 * disk.GiB})
		return err
	}
	must(t, grow())
	work = func() error {
		_, err := h.RollbackVolume(t.Context(), "fault-source@fault")
		var e *Error
		if errors.As(err, &e) && len(e.Left) > 0 {
			if want := "vmdisk volume "; !strings.Contains(e.Next, want) {
				t.Errorf("next is %q", e.Next)
			}
			e.Left = nil // as it should be after the point of no return
		}
		return err
	}
	return work, grow
}

func prepareTrash(t *testing.T, h *Host) (work, reverse func() error) {
	v := volume(t, h)
	ctx := context.WithoutCancel(t.Context()) // it is taken out of the trash at the end, too
	t.Cleanup(func() { _, _ = h.RestoreVolume(ctx, v.ID) })
	work = func() error { _, err := h.TrashVolume(ctx, v.ID, time.Hour); return err }
	return work, func() error { _, err := h.RestoreVolume(ctx, v.ID); return err }
}

func prepareRestore(t *testing.T, h *Host) (work, reverse func() error) {
	trash, restore := prepareTrash(t, h)
	must(t, trash())
	return restore, trash
}

// prepareChain has a volume from a volume which was deleted and is kept for it.
func prepareChain(t *testing.T, h *Host) (create, remove func() error) {
	create = func() error {
		_, err := h.CreateVolume(t.Context(), "fault-kept", disk.GiB)
		if err == nil {
			_, err = h.CloneVolume(t.Context(), CloneOptions{ID: "fault", Volume: "fault-kept"})
		}
		if err == nil {
			rbdCommand(t, "rename", "volumes/volume-fault-kept", "volumes/volume-fault-kept.deleted")
		}
		return err
	}
	return create, func() error { return h.RemoveVolume(t.Context(), "fault") }
}

func prepareFlatten(t *testing.T, h *Host) (create, remove func() error) {
	create, removeIt := prepareChain(t, h)
	return create, func() error {
		_, err := h.FlattenVolume(t.Context(), "fault")
		if errors.Is(err, disk.ErrInvalid) { // it is flat
			err = nil
		}
		if err == nil {
			err = removeIt()
		}
		return err
	}
}

func preparePurge(t *testing.T, h *Host) (create, remove func() error) {
	chain, _ := prepareChain(t, h)
	create = func() error {
		err := chain()
		if err == nil {
			_, err = h.TrashVolume(t.Context(), "fault", time.Hour)
		}
		return err
	}
	return create, func() error { _, err := h.PurgeVolume(t.Context(), "fault", true); return err }
}
