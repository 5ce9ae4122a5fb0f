// Removing backups: any of a chain, without losing the others.

package vmdisk

import (
	"context"

	"github.com/vmdisk/vmdisk/disk"
)

// RemoveBackup removes a backup, whoever made it, and its snapshot of the volume.
// Those made after it stay whole: each is a snapshot of the base, which holds all
// of its state; the base goes with the last. The next one takes over what was known
// of the removed one, its checksums among it. It also removes what an interrupted
// backup has left. Run again after a failure, it finishes.
//
// Similar to: cinder backup-delete, which takes only the last of a chain.
func (h *Host) RemoveBackup(ctx context.Context, id string) (disk.Backup, error) {
	const op = "remove"
	var b disk.Backup
	err := h.withChain(ctx, id, "removal of backup "+id, func(ctx context.Context, c chain) error {
		b = c.backup
		return h.run(ctx, op, "backup "+id, h.dropSteps(c.volumes, c.store, b)...)
	})
	return b, failed(op, "backup "+id, err)
}

// chain is a backup that nobody else works on.
type chain struct {
	volumes, store *disk.Cluster
	backup         disk.Backup
}

// withChain finds a backup and locks its chain.
func (h *Host) withChain(ctx context.Context, id, doing string, f func(context.Context, chain) error) (err error) {
	var c chain
	if c.volumes, c.store, err = h.both(ctx); err != nil {
		return err
	}
	if c.backup, err = c.find(ctx, h.cfg.BackupPool, id); err != nil {
		return err
	}
	ctx, lock, err := c.store.LockChain(ctx, h.cfg.BackupPool, c.backup.Volume, doing)
	if err != nil {
		return lacking(err, c.store, h.cfg.BackupPool)
	}
	// Whoever had the lock may have changed it.
	if c.backup, err = c.find(ctx, h.cfg.BackupPool, id); err == nil {
		err = f(ctx, c)
	}
	return unlock(ctx, lock, err)
}

func (c chain) find(ctx context.Context, pool, id string) (disk.Backup, error) {
	if err := disk.CheckBackupID(id); err != nil {
		return disk.Backup{}, err
	}
	b, err := c.store.FindBackup(ctx, pool, id)
	return b, lacking(err, c.store, pool)
}

// both are the connections as the user of the volumes and as that of the backups.
func (h *Host) both(ctx context.Context) (volumes, store *disk.Cluster, err error) {
	if volumes, err = h.Cluster(ctx); err != nil {
		return nil, nil, err
	}
	store, err = h.backups(ctx)
	return volumes, store, err
}

// dropSteps remove a backup, whole or not. The note on it goes last, so that its
// ID leads to the rest until the end; from the first step on it does not count as
// a backup any more.
func (h *Host) dropSteps(volumes, store *disk.Cluster, b disk.Backup) []step {
	pool := h.cfg.BackupPool
	base := disk.Name{Pool: pool, Image: b.Base}
	at, src := base, b.VolumeName()
	at.Snap, src.Snap = b.Snapshot, b.Source
	onStore := func(f func(context.Context) error) func(context.Context) error {
		return func(ctx context.Context) error { return lacking(f(ctx), store, pool) }
	}
	steps := []step{
		{name: "retire", detail: says("backup " + b.ID), do: onStore(func(ctx context.Context) error {
			// The removal of another may have changed what is noted of it.
			now, err := store.FindBackup(ctx, pool, b.ID)
			if err != nil {
				return err
			}
			b = now
			gone := b
			gone.State = disk.BackupIncomplete
			return store.WriteBackup(ctx, pool, gone)
		})},
		{name: "inherit", detail: says("checksums of " + b.ID), do: onStore(func(ctx context.Context) error {
			return store.Inherit(ctx, pool, b)
		})},
		{name: "metadata", detail: says("backup." + b.ID + ".meta"), do: onStore(func(ctx context.Context) error {
			return store.RemoveBackupMeta(ctx, pool, b.ID)
		})},
	}
	if disk.IsBackupSnapshot(b.Source) {
		steps = append(steps, step{name: "source", detail: says(b.VolumeName().String()), do: func(ctx context.Context) error {
			return lacking(gone(volumes.RemoveSnapshot(ctx, src)), volumes, src.Pool)
		}})
	}
	return append(steps,
		step{name: "snapshot", detail: base.String, do: onStore(func(ctx context.Context) error {
			return gone(store.RemoveSnapshot(ctx, at))
		})},
		step{name: "base", detail: base.String, do: onStore(func(ctx context.Context) error {
			return store.TidyBase(ctx, base)
		})},
		step{name: "forget", detail: says("backup " + b.ID), do: onStore(func(ctx context.Context) error {
			return store.ForgetBackup(ctx, pool, b)
		})})
}
