// Removing backups: any of a chain, without losing the others.

package vmdisk

import (
	"context"
	"errors"

	"github.com/vmdisk/vmdisk/disk"
)

// RemoveBackup removes a backup, whoever made it, and its snapshot of the volume.
// Those made after it stay whole: each is a snapshot of the base, which holds all
// of its state; the base goes with the last. The next one takes over what was known
// of the removed one, its checksums among it. It also removes what an interrupted
// backup has left. One that a volume reads from is [disk.ErrHasClones]. Interrupted
// itself, it is finished by a repair, by running it again, or by the next work on that
// volume's backups.
//
// Similar to: cinder backup-delete, which takes only the last of a chain.
func (h *Host) RemoveBackup(ctx context.Context, id string) (disk.Backup, error) {
	const op = "remove"
	c := &chain{h: h}
	defer c.end()
	if err := c.open(ctx); err != nil {
		return disk.Backup{}, failed(op, "backup "+id, err)
	}
	if _, err := h.repairLeft(ctx, &c.session, disk.VolumePool, "backup "+id); err != nil {
		return disk.Backup{}, failed(op, "backup "+id, err)
	}
	if err := c.find(ctx, id); err != nil {
		return disk.Backup{}, failed(op, "backup "+id, err)
	}
	t := c.task(op, backupLease(id))
	t.forward = true
	done := false
	t.check = func(ctx context.Context) error {
		err := c.find(ctx, id)
		if done = errors.Is(err, disk.ErrNotFound); done { // it was half removed, and that has just been finished
			return nil
		}
		if err == nil {
			err = h.unread(ctx, c.cluster, c.backup)
		}
		return err
	}
	t.steps = func() []step {
		if done {
			return nil
		}
		return h.dropSteps(&c.session, c.backup)
	}
	err := h.perform(ctx, t)
	return c.backup, err
}

// chain is a backup among those of its volume.
type chain struct {
	session
	h      *Host
	store  *disk.Cluster // of backups; session.cluster has the volumes
	backup disk.Backup
}

// open makes the connections as the user of the volumes and as that of the backups.
func (c *chain) open(ctx context.Context) (err error) {
	if c.cluster, err = c.h.Cluster(ctx); err != nil {
		return err
	}
	c.store, err = c.h.backups(ctx)
	return err
}

// find looks for a backup, under the lease of the chain once more.
func (c *chain) find(ctx context.Context, id string) error {
	if err := disk.CheckBackupID(id); err != nil {
		return err
	}
	if err := c.open(ctx); err != nil {
		return err
	}
	b, err := c.store.FindBackup(ctx, c.h.cfg.BackupPool, id)
	if err == nil {
		c.backup = b
	}
	return err
}

// task is one on the backup.
func (c *chain) task(op string, also ...string) task {
	return onChain(&c.session, op, "backup "+c.backup.ID, c.backup.Volume, also...)
}

// onChain is a task on the backups of a volume: nobody else works on them meanwhile.
// It is in the journal of the volumes, whatever pool the volume is in, for a base
// does not say that; and its lease is not the volume's, which can be attached,
// resized and snapshotted as long as a copy takes.
func onChain(on *session, op, object, volume string, also ...string) task {
	return task{op: op, object: object, on: on, pool: disk.VolumePool,
		leases: append([]string{disk.VolumePool + "/backups of " + disk.VolumeName(volume)}, also...)}
}

// backupLease is that of a backup's ID, which is one of all volumes'.
func backupLease(id string) string { return disk.VolumePool + "/backup " + id }

// dropSteps remove a backup, whole or not. The note on it goes last, so that its
// ID leads to the rest until the end; from the first step on it does not count as
// a backup any more.
func (h *Host) dropSteps(on *session, b disk.Backup) []step {
	pool, id := h.cfg.BackupPool, "backup "+b.ID
	base := disk.Name{Pool: pool, Image: b.Base}
	at, src := base, b.VolumeName()
	at.Snap, src.Snap = b.Snapshot, b.Source
	steps := []step{
		h.forward(on, "retire", id, onBackup(actRetireBackup, pool, b)),
		h.forward(on, "inherit", "checksums of "+b.ID, onBackup(actInherit, pool, b)),
	}
	if disk.IsBackupSnapshot(b.Source) {
		steps = append(steps, h.forward(on, "source", src.String(), action{Verb: actRemoveSnap, Image: src.String()}))
	}
	return append(steps,
		h.forward(on, "snapshot", at.String(), action{Verb: actRemoveSnap, Image: at.String(), Store: true}),
		h.forward(on, "base", base.String(), action{Verb: actTidyBase, Image: base.String(), Store: true}),
		h.forward(on, "forget", id, onBackup(actForgetBackup, pool, b)))
}
