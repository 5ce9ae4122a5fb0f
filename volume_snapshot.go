// Snapshots of volumes, as Cinder makes them, and going back to one.

package vmdisk

import (
	"context"
	"errors"
	"fmt"

	"github.com/google/uuid"
	"github.com/vmdisk/vmdisk/disk"
)

// VolumeSnapshot is a snapshot of a volume.
type VolumeSnapshot struct {
	ID     string `json:"id"`     // of Cinder's form snapshot-ID; else the name
	Volume string `json:"volume"` // the volume's ID
	Kind   string `json:"kind"`   // snapshot, clone, backup or other; see [disk.SnapshotKind]
	disk.Snapshot
}

func newVolumeSnapshot(n disk.Name, s disk.Snapshot) VolumeSnapshot {
	return VolumeSnapshot{ID: disk.SnapshotID(s.Name), Volume: disk.VolumeID(n.Image), Kind: disk.SnapshotKind(s.Name), Snapshot: s}
}

// CreateVolumeSnapshot takes a protected snapshot snapshot-ID of a volume; an empty
// id is a new UUID. The volume may be attached: the snapshot holds what a power cut
// would leave. On failure nothing is left. An ID that the volume has is
// [disk.ErrExists].
//
// Similar to: rbd snap create, rbd snap protect.
func (h *Host) CreateVolumeSnapshot(ctx context.Context, volume, id string) (VolumeSnapshot, error) {
	const op = "snapshot"
	if id == "" {
		id = uuid.NewString()
	}
	if err := disk.CheckName("snapshot", id); err != nil {
		return VolumeSnapshot{}, failed(op, volume, err)
	}
	w := &volumeWork{}
	defer w.end()
	err := w.open(ctx, h, volume)
	if err != nil {
		return VolumeSnapshot{}, failed(op, "volume "+volume, err)
	}
	if err := w.cluster.CheckVolume(ctx, w.name); err != nil {
		return VolumeSnapshot{}, h.explain(ctx, w.cluster, w.name, failed(op, "volume "+volume, err))
	}
	snap := w.name
	snap.Snap = disk.SnapshotName(id)
	t := w.task(op)
	t.check = func(ctx context.Context) error { return w.cluster.NoSnapshot(ctx, snap) }
	t.steps = steps(snapshotSteps(w.cluster, snap)...)
	if err := h.perform(ctx, t); err != nil {
		return VolumeSnapshot{}, h.explain(ctx, w.cluster, w.name, err)
	}
	all, err := w.cluster.Snapshots(context.WithoutCancel(ctx), w.name)
	for _, s := range all {
		if s.Name == snap.Snap {
			return newVolumeSnapshot(w.name, s), nil
		}
	}
	return VolumeSnapshot{}, failed(op, w.name.String(), err)
}

// snapshotSteps take a snapshot to clone from. Removing it takes the protection off.
func snapshotSteps(cluster *disk.Cluster, n disk.Name) []step {
	return []step{
		{name: "snapshot", detail: n.String, do: func(ctx context.Context) error { return cluster.CreateSnapshot(ctx, n) },
			back: []action{{Verb: actRemoveSnap, Image: n.String()}}},
		{name: "protect", detail: n.String, do: func(ctx context.Context) error { return cluster.ProtectSnapshot(ctx, n) }},
	}
}

// VolumeSnapshots lists a volume's snapshots, oldest first: also those that backups
// and clones need.
//
// Similar to: rbd snap ls and rbd children.
func (h *Host) VolumeSnapshots(ctx context.Context, volume string) ([]VolumeSnapshot, error) {
	const op = "list"
	cluster, name, err := h.volumeName(ctx, volume)
	if err != nil {
		return nil, failed(op, "snapshots of "+volume, err)
	}
	found, err := cluster.Snapshots(ctx, name)
	all := []VolumeSnapshot{}
	for _, s := range found {
		all = append(all, newVolumeSnapshot(name, s))
	}
	return all, h.explain(ctx, cluster, name, failed(op, "snapshots of "+name.String(), err))
}

// findSnapshot reads VOLUME@SNAP or a snapshot's ID and finds it.
func (h *Host) findSnapshot(ctx context.Context, cluster *disk.Cluster, spec string) (disk.Name, error) {
	n, err := disk.ParseSnapshot(spec)
	if err != nil {
		return n, err
	}
	found, err := cluster.FindSnapshot(ctx, n)
	if err != nil {
		return n, err
	}
	return found, nil
}

// RemoveVolumeSnapshot unprotects and removes a snapshot, VOLUME@SNAP or an ID. One
// with clones is [disk.ErrHasClones] and names them. One that a backup needs as the
// base of its next increment is [disk.ErrInUse]: it goes with the backup.
// Interrupted, it is finished by running it again.
//
// Similar to: rbd snap unprotect, rbd snap rm.
func (h *Host) RemoveVolumeSnapshot(ctx context.Context, snapshot string) error {
	const op = "remove"
	w := &volumeWork{}
	defer w.end()
	n, err := w.openSnapshot(ctx, h, snapshot)
	if w.done(err) {
		return nil
	}
	if err == nil && disk.SnapshotKind(n.Snap) == disk.KindBackup {
		err = &disk.Error{Op: op, Object: n.String(), Kind: disk.ErrInUse,
			Reason: "is in use by a backup, which removes it when that is removed"}
	}
	if err != nil {
		return failed(op, snapshot, err)
	}
	t := w.task(op)
	t.object, t.forward = n.String(), true
	t.check = func(ctx context.Context) error { return w.cluster.Droppable(ctx, n) }
	t.steps = steps(w.forward("remove", n.String(), action{Verb: actRemoveSnap, Image: n.String()}))
	return h.explain(ctx, w.cluster, n, h.perform(ctx, t))
}

// RollbackVolume gives a volume the content that it had when a snapshot of it,
// VOLUME@SNAP or an ID, was taken. Its size stays, or grows to the snapshot's. A
// volume that a machine has, even one that is off, or that is open is
// [disk.ErrInUse] and names them. Other snapshots stay, the younger ones too; Cinder
// itself goes back to the latest only. It takes a time in proportion to the size.
// Interrupted, the volume is neither the one nor the other, and the error says so:
// running it again finishes it, or a repair.
//
// Similar to: rbd snap rollback.
func (h *Host) RollbackVolume(ctx context.Context, snapshot string) (disk.Volume, error) {
	const op = "roll back"
	r := &rollback{}
	defer r.end()
	var err error
	if r.snap, err = r.openSnapshot(ctx, h, snapshot); err != nil {
		return disk.Volume{}, failed(op, snapshot, err)
	}
	t := r.task(op)
	t.check = r.prepare
	t.steps = func() []step { return r.steps(op) }
	if err := h.perform(ctx, t); err != nil {
		return disk.Volume{}, h.explain(ctx, r.cluster, r.name, r.unfinished(err))
	}
	v, err := r.cluster.Volume(context.WithoutCancel(ctx), r.name)
	return v, failed(op, r.name.String(), err)
}

type rollback struct {
	volumeWork
	snap      disk.Name
	has, then int64 // the volume's size, and the snapshot's
	begun     bool
}

func (r *rollback) prepare(ctx context.Context) (err error) {
	if r.has, err = r.cluster.Size(ctx, r.name); err != nil {
		return err
	}
	if r.then, err = r.cluster.SnapshotSize(ctx, r.snap); err != nil {
		return err
	}
	return r.cluster.RefuseUsed(ctx, "roll back", r.name)
}

func (r *rollback) steps(op string) []step {
	show := r.h.shows(op, r.name.String(), "rollback", r.has)
	steps := []step{{name: "rollback", commit: true, detail: says(r.name.String() + " to @" + r.snap.Snap),
		begun: func() bool { return r.begun }, on: []action{{Verb: actRollBack, Image: r.snap.String()}},
		do: func(ctx context.Context) error {
			return r.cluster.Rollback(ctx, r.snap, func(done, total int64) {
				r.begun = true
				show(done, total)
			})
		}}}
	if r.then < r.has {
		steps = append(steps, step{name: "grow", detail: says(disk.FormatSize(r.then) + " → " + disk.FormatSize(r.has)),
			on: []action{{Verb: actResize, Image: r.name.String(), From: r.then, Size: r.has}},
			do: func(ctx context.Context) error { _, err := r.cluster.Grow(ctx, r.name, r.has); return err }})
	}
	return steps
}

// unfinished says what an interrupted rollback left and how to finish it.
func (r *rollback) unfinished(err error) error {
	var e *Error
	if !errors.As(err, &e) || !r.begun {
		return err
	}
	id := disk.VolumeID(r.name.Image)
	if e.Step == "grow" {
		e.Left = append(e.Left, r.name.String()+" is rolled back and "+disk.FormatSize(r.then))
		e.Next = fmt.Sprintf("to finish:  vmdisk volume resize %s %dG", id, r.has/disk.GiB)
		return err
	}
	e.Left = append(e.Left, r.name.String()+" is half rolled back")
	e.Next = "to finish:  vmdisk volume snapshot rollback " + id + "@" + disk.SnapshotID(r.snap.Snap)
	return err
}
