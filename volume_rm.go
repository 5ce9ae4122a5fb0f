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
	cluster, name, err := h.volumeName(ctx, volume)
	if err != nil {
		return failed(op, "volume "+volume, err)
	}
	judged, err := cluster.JudgeRemoval(ctx, name)
	missing := errors.Is(err, disk.ErrNotFound)
	if missing && errors.Is(cluster.Absent(ctx, name), disk.ErrExists) {
		missing = false // it was never finished
	}
	if err != nil && !errors.Is(err, disk.ErrNotFound) {
		return h.explain(ctx, cluster, name, failed(op, name.String(), err))
	}
	p, partErr := h.newParting(ctx, cluster, name, "")
	if missing && !p.begun {
		return h.explain(ctx, cluster, name, failed(op, name.String(), err))
	}
	if gone(partErr) != nil {
		return failed(op, name.String(), partErr)
	}
	var work []step
	for _, s := range judged.Snapshots {
		work = append(work, step{name: "drop", detail: s.String,
			do: func(ctx context.Context) error { return gone(cluster.RemoveSnapshot(ctx, s)) }})
	}
	if !missing {
		work = append(work, step{name: "remove", detail: name.String,
			do: func(ctx context.Context) error { return cluster.RemoveVolume(ctx, name) }})
	}
	err = h.run(ctx, op, name.String(), p.around(work)...)
	return h.explain(ctx, cluster, name, p.unfinished(err, "vmdisk volume rm "+disk.VolumeID(name.Image)))
}

// TrashVolume moves a volume, with its snapshots, into the trash, where it is kept
// from being purged for at least keep. One that a machine has or that is open is
// [disk.ErrInUse], one with clones [disk.ErrHasClones]. [Host.RestoreVolume] takes
// it out again.
//
// Similar to: rbd trash mv --expires-at.
func (h *Host) TrashVolume(ctx context.Context, volume string, keep time.Duration) (disk.Trashed, error) {
	const op = "trash"
	cluster, name, err := h.volumeName(ctx, volume)
	if err != nil {
		return disk.Trashed{}, failed(op, "volume "+volume, err)
	}
	if keep < 0 {
		return disk.Trashed{}, failed(op, name.String(), badInput("it cannot be kept for %v", keep))
	}
	restore := func(ctx context.Context) error { return gone(cluster.RestoreTrash(ctx, name)) }
	err = h.run(ctx, op, name.String(), step{name: "trash", detail: name.String, undo: restore,
		do: func(ctx context.Context) error { return cluster.TrashVolume(ctx, name, keep) }})
	if err != nil {
		return disk.Trashed{}, h.explain(ctx, cluster, name, err)
	}
	t, err := cluster.InTrash(context.WithoutCancel(ctx), name)
	return t, failed(op, name.String(), err)
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
	cluster, name, err := h.volumeName(ctx, volume)
	if err != nil {
		return disk.Volume{}, failed(op, "volume "+volume, err)
	}
	t, err := cluster.InTrash(ctx, name)
	if err != nil {
		return disk.Volume{}, failed(op, name.String(), err)
	}
	keep := max(0, time.Until(t.Expires))
	err = h.run(ctx, op, name.String(), step{name: "restore", detail: name.String,
		do:   func(ctx context.Context) error { return cluster.RestoreTrash(ctx, name) },
		undo: func(ctx context.Context) error { return gone(cluster.MoveToTrash(ctx, name, keep)) }})
	if err != nil {
		return disk.Volume{}, err
	}
	v, err := cluster.Volume(context.WithoutCancel(ctx), name)
	return v, failed(op, name.String(), err)
}

// PurgeVolume removes for good the volume of this name that was moved to the trash
// last, with its snapshots. One that is to be kept longer is [disk.ErrPermission]
// unless force is set, one with clones [disk.ErrHasClones]. Interrupted, it is
// finished by running it again.
//
// Similar to: rbd trash rm.
func (h *Host) PurgeVolume(ctx context.Context, volume string, force bool) (disk.Trashed, error) {
	const op = "purge"
	cluster, name, err := h.volumeName(ctx, volume)
	if err != nil {
		return disk.Trashed{}, failed(op, "volume "+volume, err)
	}
	t, err := cluster.InTrash(ctx, name)
	if errors.Is(err, disk.ErrNotFound) { // all but what it hung on may be done
		if p, partErr := h.newParting(ctx, cluster, name, ""); p.begun && errors.Is(partErr, disk.ErrNotFound) {
			t = disk.Trashed{Pool: name.Pool, Image: name.Image}
			return t, h.run(ctx, op, name.String(), p.around(nil)...)
		}
	}
	if err != nil {
		return t, failed(op, name.String(), err)
	}
	return t, h.purge(ctx, cluster, t, force)
}

func (h *Host) purge(ctx context.Context, cluster *disk.Cluster, t disk.Trashed, force bool) error {
	const op = "purge"
	name := disk.Name{Pool: t.Pool, Image: t.Image}
	if !force && time.Now().Before(t.Expires) {
		err := failed(op, name.String(), &disk.Error{Op: op, Object: name.String(), Kind: disk.ErrPermission,
			Reason: "it is to be kept until " + t.Expires.Local().Format("2006-01-02 15:04")})
		var e *Error
		if errors.As(err, &e) {
			e.Next = "to remove it now:  vmdisk volume purge --force " + disk.VolumeID(t.Image)
		}
		return err
	}
	p, err := h.newParting(ctx, cluster, name, t.ID)
	if err != nil {
		return failed(op, name.String(), err)
	}
	err = h.run(ctx, op, name.String(), p.around([]step{
		{name: "drop", detail: says("snapshots of " + name.String()), do: func(ctx context.Context) error { return cluster.DropTrashedSnapshots(ctx, t, nil) }},
		{name: "purge", detail: name.String, do: func(ctx context.Context) error { return cluster.PurgeTrash(ctx, t, force) }},
	})...)
	return p.unfinished(err, "vmdisk volume purge "+disk.VolumeID(t.Image))
}

// PurgeVolumes removes for good every volume in the trash that need not be kept
// longer. One that cannot be removed does not stop the others; the errors are
// joined.
//
// Similar to: rbd trash purge.
func (h *Host) PurgeVolumes(ctx context.Context) ([]disk.Trashed, error) {
	purged := []disk.Trashed{}
	all, err := h.TrashedVolumes(ctx)
	if err != nil {
		return purged, err
	}
	var errs []error
	for _, t := range all {
		if time.Now().Before(t.Expires) {
			continue
		}
		cluster, err := h.Cluster(ctx)
		if err == nil {
			err = h.purge(ctx, cluster, t, false)
		}
		if err == nil {
			purged = append(purged, t)
		}
		errs = append(errs, err)
	}
	return purged, errors.Join(errs...)
}
