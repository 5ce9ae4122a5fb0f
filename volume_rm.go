// Removing volumes: at once, or into the trash and later for good.

package vmdisk

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/vmdisk/vmdisk/disk"
)

// RemoveVolume removes a volume that no machine has, nobody has open, and nothing
// depends on; it refuses others and names who is in the way: [disk.ErrInUse],
// [disk.ErrHasClones], [disk.ErrHasSnapshots]. Snapshots of backups go with it, as
// in Cinder: the backups are whole without. So does what only this volume kept: the
// snapshot of another that it was cloned over, and that other if it was deleted
// before. Interrupted, it is finished by running it again.
//
// Similar to: rbd rm.
func (h *Host) RemoveVolume(ctx context.Context, volume string) error {
	const op = "remove"
	p := &parting{}
	defer p.end()
	if err := p.open(ctx, h, volume); err != nil {
		return failed(op, "volume "+volume, err)
	}
	var own []disk.Name
	p.look = func(ctx context.Context) ([]disk.Name, error) {
		judged, err := p.cluster.JudgeRemoval(ctx, p.name)
		if errors.Is(err, disk.ErrNotFound) && errors.Is(p.cluster.Absent(ctx, p.name), disk.ErrExists) {
			err = nil // it was never finished
		}
		own = judged.Snapshots
		return judged.Ancestors, err
	}
	err := p.part(ctx, op, true, func() (work []step) {
		for _, s := range own {
			work = append(work, p.forward("drop", s.String(), action{Verb: actRemoveSnap, Image: s.String()}))
		}
		return append(work, p.forward("remove", p.name.String(), action{Verb: actRemoveVolume, Image: p.name.String()}))
	}, "vmdisk volume rm "+disk.VolumeID(p.name.Image))
	if p.done(err) {
		return nil
	}
	return h.explain(ctx, p.cluster, p.name, err)
}

// TrashVolume moves a volume, with its snapshots, into the trash, where it is kept
// from being purged for at least keep. One that a machine has or that is open is
// [disk.ErrInUse], one with clones [disk.ErrHasClones]. [Host.RestoreVolume] takes
// it out again.
//
// Similar to: rbd trash mv --expires-at.
func (h *Host) TrashVolume(ctx context.Context, volume string, keep time.Duration) (disk.Trashed, error) {
	const op = "trash"
	w := &volumeWork{}
	defer w.end()
	if err := w.open(ctx, h, volume); err != nil {
		return disk.Trashed{}, failed(op, "volume "+volume, err)
	}
	if keep < 0 {
		return disk.Trashed{}, failed(op, w.name.String(), badInput("it cannot be kept for %v", keep))
	}
	t := w.task(op)
	t.forward = true
	t.check = func(ctx context.Context) error { return w.cluster.Trashable(ctx, w.name) }
	t.steps = steps(w.forward("trash", w.name.String(), action{Verb: actTrash, Image: w.name.String(), Until: time.Now().Add(keep)}))
	err := w.cluster.Trashable(ctx, w.name)
	if err == nil {
		err = h.perform(ctx, t)
	}
	if err != nil && !w.done(err) {
		return disk.Trashed{}, h.explain(ctx, w.cluster, w.name, failed(op, w.name.String(), err))
	}
	in, err := w.cluster.InTrash(context.WithoutCancel(ctx), w.name)
	return in, failed(op, w.name.String(), err)
}

// TrashedVolumes lists the volumes in the trash, by name and then by age.
//
// Similar to: rbd trash ls.
func (h *Host) TrashedVolumes(ctx context.Context) ([]disk.Trashed, error) {
	cluster, err := h.Cluster(ctx)
	if err != nil {
		return nil, failed("list", "trash", err)
	}
	all, err := cluster.Trash(ctx, disk.VolumePool)
	all = slices.DeleteFunc(all, func(t disk.Trashed) bool { return disk.VolumeID(t.Image) == t.Image })
	return all, failed("list", "trash", err)
}

// RestoreVolume takes the volume of this name that was moved to the trash last out
// of it. If there is none it is [disk.ErrNotFound], if there is such a volume by
// now [disk.ErrExists].
//
// Similar to: rbd trash restore.
func (h *Host) RestoreVolume(ctx context.Context, volume string) (disk.Volume, error) {
	const op = "restore"
	w := &volumeWork{}
	defer w.end()
	if err := w.open(ctx, h, volume); err != nil {
		return disk.Volume{}, failed(op, "volume "+volume, err)
	}
	in, err := w.cluster.InTrash(ctx, w.name)
	t := w.task(op)
	t.forward = true
	t.check = func(ctx context.Context) (err error) {
		if in, err = w.cluster.InTrash(ctx, w.name); err != nil {
			return err
		}
		if errors.Is(w.cluster.Absent(ctx, w.name), disk.ErrExists) {
			err = &disk.Error{Op: op, Object: w.name.String(), Kind: disk.ErrExists}
		}
		return err
	}
	t.steps = func() []step {
		a := action{Verb: actRestore, Image: w.name.String(), ID: in.ID}
		return []step{{name: "restore", detail: w.name.String, on: []action{a},
			do: func(ctx context.Context) error { return w.cluster.RestoreTrashed(ctx, in) }}}
	}
	if err == nil {
		err = h.perform(ctx, t)
	}
	if err != nil && !w.done(err) {
		return disk.Volume{}, failed(op, w.name.String(), err)
	}
	v, err := w.cluster.Volume(context.WithoutCancel(ctx), w.name)
	return v, failed(op, w.name.String(), err)
}

// PurgeVolume removes for good the volume of this name that was moved to the trash
// last, with its snapshots. One that is to be kept longer is [disk.ErrPermission]
// unless force is set, one with clones [disk.ErrHasClones]. Interrupted, it is
// finished by running it again.
//
// Similar to: rbd trash rm.
func (h *Host) PurgeVolume(ctx context.Context, volume string, force bool) (disk.Trashed, error) {
	const op = "purge"
	p := &parting{}
	defer p.end()
	if err := p.open(ctx, h, volume); err != nil {
		return disk.Trashed{}, failed(op, "volume "+volume, err)
	}
	t, err := p.cluster.InTrash(ctx, p.name)
	if p.done(err) {
		return disk.Trashed{Pool: p.name.Pool, Image: p.name.Image}, nil
	}
	if err != nil {
		return t, failed(op, p.name.String(), err)
	}
	return t, p.purge(ctx, t, force)
}

// purge removes one that is in the trash.
func (p *parting) purge(ctx context.Context, t disk.Trashed, force bool) error {
	const op = "purge"
	if !force && time.Now().Before(t.Expires) {
		return &Error{Op: op, Object: p.name.String(),
			Err: &disk.Error{Op: op, Object: p.name.String(), Kind: disk.ErrPermission,
				Reason: "it is to be kept until " + t.Expires.Local().Format("2006-01-02 15:04")},
			Next: "to remove it now:  vmdisk volume purge --force " + disk.VolumeID(t.Image)}
	}
	p.look = func(ctx context.Context) ([]disk.Name, error) { return p.cluster.JudgePurge(ctx, t) }
	return p.part(ctx, op, true, func() []step {
		on := action{Image: p.name.String(), ID: t.ID}
		snaps, entry := on, on
		snaps.Verb, entry.Verb = actDropTrashed, actPurge
		return []step{p.forward("drop", "snapshots of "+p.name.String(), snaps), p.forward("purge", p.name.String(), entry)}
	}, "vmdisk volume purge "+disk.VolumeID(t.Image))
}

// PurgeVolumes removes for good every volume in the trash that need not be kept
// longer. One that cannot be removed does not stop the others; the errors are
// joined.
//
// Similar to: rbd trash purge.
func (h *Host) PurgeVolumes(ctx context.Context) ([]disk.Trashed, error) {
	const op = "purge"
	purged := []disk.Trashed{}
	on := &session{}
	defer on.end()
	var err error
	if on.cluster, err = h.Cluster(ctx); err == nil {
		_, err = h.repairThose(ctx, on, disk.VolumePool, func(o disk.Operation) bool { return o.Kind == op })
	}
	if err != nil {
		return purged, failed(op, "volumes", err)
	}
	all, err := h.TrashedVolumes(ctx)
	if err != nil {
		return purged, err
	}
	var errs []error
	for _, t := range all {
		if time.Now().Before(t.Expires) {
			continue
		}
		p := &parting{volumeWork: volumeWork{session: session{cluster: on.cluster}, h: h, name: disk.Name{Pool: t.Pool, Image: t.Image}}}
		err := p.purge(ctx, t, false)
		p.end()
		if err == nil {
			purged = append(purged, t)
		}
		errs = append(errs, err)
	}
	return purged, errors.Join(errs...)
}
