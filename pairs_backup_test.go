// The workflows on backups that TestInterrupted interrupts.

package vmdisk

import (
	"context"
	"errors"
	"testing"

	"github.com/vmdisk/vmdisk/disk"
)

var backupPairs = []reversible{
	{
		setup: func(t *testing.T, h *Host) fixture {
			return fixture{Volume: backedUp(t, h).ID, Backup: "pair"}
		},
		do:   workflow{name: "backup", run: backupPair(BackupOptions{}), over: disk.ErrExists},
		undo: workflow{name: "remove backup", run: removeBackupPair, over: disk.ErrNotFound},
	},
	{
		setup: func(t *testing.T, h *Host) fixture {
			v := backedUp(t, h)
			create(t, h, v.ID, BackupOptions{ID: "pair-full"})
			mess(t, v.Name(), 2)
			return fixture{Volume: v.ID, Backup: "pair"}
		},
		do:   workflow{name: "incremental", run: backupPair(BackupOptions{Kind: disk.BackupIncremental}), over: disk.ErrExists},
		undo: workflow{run: removeBackupPair},
	},
	{
		// The second replaces the first, which hands on what it knows.
		setup: func(t *testing.T, h *Host) fixture {
			f := fixture{Volume: backedUp(t, h).ID, Backup: "pair"}
			must(t, backupPair(BackupOptions{})(t.Context(), h, fixture{Volume: f.Volume, Backup: "pair-before"}))
			return f
		},
		do: workflow{name: "incremental that replaces", over: disk.ErrExists,
			run: backupPair(BackupOptions{Kind: disk.BackupIncremental, Keep: 1})},
		undo: workflow{run: func(ctx context.Context, h *Host, f fixture) error {
			if err := gone(removeBackupPair(ctx, h, f)); err != nil {
				return err
			}
			f.Backup = "pair-before"
			return backupPair(BackupOptions{})(ctx, h, f)
		}},
	},
	{
		setup: func(t *testing.T, h *Host) fixture {
			v := backedUp(t, h)
			create(t, h, v.ID, BackupOptions{ID: "pair-full"})
			return fixture{Volume: "pair-restored", Backup: "pair-full"}
		},
		do: workflow{name: "restore backup", over: disk.ErrExists, run: func(ctx context.Context, h *Host, f fixture) error {
			_, err := h.RestoreBackup(ctx, f.Backup, RestoreOptions{ID: f.Volume})
			return err
		}},
		undo: workflow{run: func(ctx context.Context, h *Host, f fixture) error { return h.RemoveVolume(ctx, f.Volume) }},
	},
	{
		setup: instantPair,
		do:    workflow{name: "restore backup at once", over: disk.ErrExists, run: restoreAtOnce},
		undo:  workflow{name: "remove what reads from a backup", over: disk.ErrNotFound, run: removeVolumePair},
	},
	{
		setup: func(t *testing.T, h *Host) fixture {
			f := instantPair(t, h)
			must(t, restoreAtOnce(t.Context(), h, f))
			return f
		},
		do: workflow{name: "flatten what reads from a backup", over: disk.ErrInvalid, run: func(ctx context.Context, h *Host, f fixture) error {
			_, err := h.FlattenVolume(ctx, f.Volume)
			return err
		}},
		undo: workflow{run: func(ctx context.Context, h *Host, f fixture) error {
			err := h.RemoveVolume(ctx, f.Volume)
			if err == nil {
				err = restoreAtOnce(ctx, h, f)
			}
			return err
		}},
	},
	{
		setup: func(t *testing.T, h *Host) fixture {
			b := create(t, h, backedUp(t, h).ID, BackupOptions{ID: "pair-full"})
			old := volume(t, h)
			_, err := h.ResizeVolume(t.Context(), old.ID, VolumeSize{Size: 2 * disk.GiB})
			must(t, err)
			id, err := mustCluster(t, h).ImageID(t.Context(), old.Name())
			must(t, err)
			return fixture{Volume: old.ID, Backup: b.ID, Image: id}
		},
		do: workflow{name: "restore backup to a volume", run: restoreToPair},
		undo: workflow{run: func(ctx context.Context, h *Host, f fixture) error {
			n, err := disk.ParseVolume(f.Volume)
			if err == nil {
				err = gone(h.RemoveVolume(ctx, f.Volume))
			}
			if err != nil {
				return err
			}
			cluster, err := h.Cluster(ctx)
			if err != nil {
				return err
			}
			return cluster.RestoreTrashed(ctx, disk.Trashed{ID: f.Image, Pool: n.Pool, Image: n.Image})
		}},
	},
}

func instantPair(t *testing.T, h *Host) fixture {
	mayReadBackups(t)
	b := create(t, h, backedUp(t, h).ID, BackupOptions{ID: "pair-full"})
	f := fixture{Volume: "pair-instant", Backup: b.ID}
	t.Cleanup(func() { _ = h.RemoveVolume(context.WithoutCancel(t.Context()), f.Volume) })
	return f
}

func restoreAtOnce(ctx context.Context, h *Host, f fixture) error {
	_, err := h.RestoreBackup(ctx, f.Backup, RestoreOptions{ID: f.Volume, Instant: true})
	return err
}

func backupPair(o BackupOptions) func(context.Context, *Host, fixture) error {
	return func(ctx context.Context, h *Host, f fixture) error {
		o.ID = f.Backup
		_, err := h.CreateBackup(ctx, f.Volume, o)
		return err
	}
}

func removeBackupPair(ctx context.Context, h *Host, f fixture) error {
	_, err := h.RemoveBackup(ctx, f.Backup)
	return err
}

// restoreToPair replaces a volume. Done again it replaces what it has restored, of
// which it leaves nothing: in the trash is only what was there before.
func restoreToPair(ctx context.Context, h *Host, f fixture) error {
	_, err := h.RestoreBackup(ctx, f.Backup, RestoreOptions{To: f.Volume})
	if err != nil {
		return err
	}
	cluster, err := h.Cluster(ctx)
	if err != nil {
		return err
	}
	all, err := cluster.Trash(ctx, disk.VolumePool)
	for _, one := range all {
		if one.Image == disk.VolumeName(f.Volume) && one.ID != f.Image {
			err = errors.Join(err, cluster.PurgeTrash(ctx, one, true))
		}
	}
	return err
}
