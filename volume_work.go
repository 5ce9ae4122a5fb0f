// What the workflows on one volume have in common.

package vmdisk

import (
	"context"
	"errors"

	"github.com/vmdisk/vmdisk/disk"
)

// volumeWork is a workflow on one volume.
type volumeWork struct {
	session
	h    *Host
	name disk.Name
	// repaired says that something was interrupted on the volume and has just been
	// brought to an end.
	repaired bool
}

// open finds out which volume is meant. What was interrupted on it is brought to an
// end first.
func (w *volumeWork) open(ctx context.Context, h *Host, volume string) (err error) {
	w.h = h
	if w.cluster, w.name, err = h.volumeName(ctx, volume); err != nil {
		return err
	}
	return w.repairLeft(ctx)
}

// openSnapshot is open for a snapshot of the volume, and finds that.
func (w *volumeWork) openSnapshot(ctx context.Context, h *Host, spec string) (snap disk.Name, err error) {
	w.h = h
	if w.cluster, err = h.Cluster(ctx); err != nil {
		return snap, err
	}
	if snap, err = disk.ParseSnapshot(spec); err != nil {
		return snap, err
	}
	if w.name = snap; snap.Image == "" { // it must be there to know the volume
		if snap, err = w.cluster.FindSnapshot(ctx, snap); err != nil {
			return snap, err
		}
		w.name = snap
	}
	w.name.Snap = ""
	if err = w.repairLeft(ctx); err != nil {
		return snap, err
	}
	return w.cluster.FindSnapshot(ctx, snap)
}

func (w *volumeWork) repairLeft(ctx context.Context) (err error) {
	w.repaired, err = w.h.repairLeft(ctx, &w.session, w.name.Pool, w.name.Image)
	return err
}

// done says of a volume, or a snapshot, that is not there, that it was half removed,
// and that this has just been finished.
func (w *volumeWork) done(err error) bool { return w.repaired && errors.Is(err, disk.ErrNotFound) }

// task is one on the volume, which nobody else changes meanwhile.
func (w *volumeWork) task(op string) task {
	return task{op: op, object: w.name.String(), on: &w.session, pool: w.name.Pool, leases: []string{w.name.String()}}
}

// forward is a step that only goes forward: one action.
func (w *volumeWork) forward(name, detail string, a action) step {
	return w.h.forward(&w.session, name, detail, a)
}
