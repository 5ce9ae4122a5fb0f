// Instant restore: a volume that is a clone of a backup.

package vmdisk

import (
	"context"
	"errors"
	"fmt"

	"github.com/vmdisk/vmdisk/disk"
)

// kept is the snapshot that holds a backup.
func (h *Host) kept(b disk.Backup) disk.Name {
	return disk.Name{Pool: h.cfg.BackupPool, Image: b.Base, Snap: b.Snapshot}
}

// readable refuses a backup that the user of volumes may not read: QEMU opens them as that.
func (r *restore) readable(ctx context.Context) error {
	_, err := r.cluster.SnapshotSize(ctx, r.h.kept(r.backup))
	if !errors.Is(err, disk.ErrPermission) {
		return err
	}
	return &Error{Op: "restore", Object: "backup " + r.backup.ID, Err: &disk.Error{Object: "pool " + r.h.cfg.BackupPool, Kind: disk.ErrPermission, Err: err,
		Reason: fmt.Sprintf("client.%s, as whom machines open their volumes, may not read it", r.cluster.User())},
		Next: "to let it, once:  vmdisk cluster init --id admin --cluster-only --instant-restore"}
}

func (r *restore) instantly() []step {
	at := r.h.kept(r.backup)
	return []step{
		{name: "protect", detail: at.String, do: func(ctx context.Context) error { return r.store.ProtectSnapshot(ctx, at) },
			back: []action{{Verb: actLoosen, Image: at.String(), Store: true}}},
		{name: "clone", detail: says(at.String() + " → " + r.to.String() + ", " + disk.FormatSize(r.size)),
			do:   func(ctx context.Context) error { return r.cluster.CloneBackup(ctx, at, r.size, r.to) },
			back: []action{{Verb: actRemove, Image: r.to.String()}}},
	}
}

// unread refuses to remove a backup that a volume still reads from.
func (h *Host) unread(ctx context.Context, cluster *disk.Cluster, b disk.Backup) error {
	err := cluster.Droppable(ctx, h.kept(b))
	if errors.Is(err, disk.ErrPermission) { // it may have had the cap before
		store, storeErr := h.backups(ctx)
		if storeErr != nil {
			return storeErr
		}
		err = store.Droppable(ctx, h.kept(b))
	}
	var e *disk.Error
	if errors.As(err, &e) && errors.Is(err, disk.ErrHasClones) {
		if n, nameErr := disk.ParseName(e.Holders[0], ""); nameErr == nil {
			return &Error{Op: "remove", Object: "backup " + b.ID, Err: err,
				Next: "to copy into it what it reads from there:  vmdisk volume flatten " + disk.VolumeID(n.Image)}
		}
	}
	return gone(err)
}
