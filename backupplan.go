// What a backup is going to be: of what, a difference to what, or why it cannot be
// one.

package vmdisk

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/vmdisk/vmdisk/disk"
)

// prepare refuses what cannot work before anything is looked for.
func (b *backup) prepare(ctx context.Context, volume string) (err error) {
	if b.volume, err = backupVolume(volume); err != nil {
		return err
	}
	switch b.o.Kind {
	case "":
		b.o.Kind = disk.BackupFull
	case disk.BackupFull, disk.BackupIncremental, disk.BackupDifferential:
	default:
		return badInput("kind of backup %q is none of full, incremental, differential", b.o.Kind)
	}
	if b.o.Keep < 0 {
		return badInput("%d backups cannot be kept", b.o.Keep)
	}
	if b.o.Snapshot != "" {
		if err := disk.CheckName("snapshot", b.o.Snapshot); err != nil {
			return err
		}
	}
	if b.store, err = b.h.backups(ctx); err != nil {
		return err
	}
	if b.cluster, err = b.h.Cluster(ctx); err != nil {
		return err
	}
	if b.o.ID == "" {
		b.o.ID = uuid.NewString()
		return nil
	}
	b.named = true
	return disk.CheckBackupID(b.o.ID)
}

// checkID refuses an ID that is taken, of whatever volume.
func (b *backup) checkID(ctx context.Context) error {
	_, err := b.store.FindBackup(ctx, b.pool, b.o.ID)
	if err == nil {
		return &disk.Error{Op: "create", Object: "backup " + b.o.ID, Kind: disk.ErrExists}
	}
	return gone(err)
}

// backupVolume is a volume that backups are made of. The name of a backup says only
// a volume's ID, so that nothing else can be meant.
func backupVolume(volume string) (disk.Name, error) {
	n, err := disk.ParseVolume(volume)
	if err == nil && !strings.HasPrefix(n.Image, disk.VolumeName("")) {
		err = badInput("%s is not named as a volume (volume-ID); Cinder could not name a backup of it", n)
	}
	return n, err
}

// check finds what there is, with nobody else at it.
func (b *backup) check(ctx context.Context) (err error) {
	if err := b.cluster.CheckVolume(ctx, b.volume); err != nil {
		return err
	}
	if b.named {
		if err := b.checkID(ctx); err != nil {
			return err
		}
	}
	snaps, err := b.cluster.Snapshots(ctx, b.volume)
	if err != nil {
		return err
	}
	size, err := b.cluster.Size(ctx, b.volume)
	if err != nil {
		return err
	}
	if b.all, err = b.store.Backups(ctx, b.pool, disk.VolumeID(b.volume.Image)); err != nil {
		return err
	}
	for _, one := range b.all {
		if one.State != disk.BackupComplete {
			b.lost = append(b.lost, one)
		}
	}
	b.all = slices.DeleteFunc(b.all, func(one disk.Backup) bool { return one.State != disk.BackupComplete })
	if err := b.retain(ctx); err != nil {
		return err
	}
	now := time.Now().UTC().Truncate(time.Microsecond)
	if k := len(b.all); k > 0 && !now.After(b.all[k-1].Created) {
		now = b.all[k-1].Created.Add(time.Microsecond) // clocks differ; the order counts
	}
	id := b.o.ID
	b.rec = disk.Backup{ID: id, Volume: disk.VolumeID(b.volume.Image), Pool: b.volume.Pool, Kind: disk.BackupFull, Size: size,
		Created: now, State: disk.BackupIncomplete, Base: disk.BackupBase(b.volume.Image, id),
		Snapshot: disk.BackupSnapshot(id, now), By: "vmdisk"}
	b.rec.Source = b.rec.Snapshot
	if b.o.Snapshot != "" {
		i := slices.IndexFunc(snaps, func(s disk.Snapshot) bool { return s.Name == b.o.Snapshot })
		if i < 0 {
			return &disk.Error{Op: "back up", Object: b.volume.String() + "@" + b.o.Snapshot, Kind: disk.ErrNotFound}
		}
		b.rec.Source, b.rec.Size = b.o.Snapshot, snaps[i].Size
	}
	if b.o.Kind != disk.BackupFull {
		b.chain(snaps)
	}
	b.still.name = b.volume
	b.still.name.Snap = b.rec.Source
	if b.o.Snapshot == "" && !b.o.NoFreeze {
		return b.findGuest(ctx)
	}
	return nil
}

// retain finds what is more than is to be kept, the oldest first. What a volume still
// reads from stays until the next time.
func (b *backup) retain(ctx context.Context) error {
	if b.o.Keep == 0 {
		return nil
	}
	for _, one := range b.all[:max(0, len(b.all)+1-b.o.Keep)] {
		err := b.h.unread(ctx, b.cluster, one)
		switch {
		case err == nil:
			b.old = append(b.old, one)
		case errors.Is(err, disk.ErrHasClones):
			b.note("backup " + one.ID + " stays: " + err.Error())
		default:
			return err
		}
	}
	return nil
}

// chain makes it the difference to another, if that can be.
func (b *backup) chain(snaps []disk.Snapshot) {
	since, why := b.base(snaps)
	if why != "" {
		b.note("full backup instead of " + b.o.Kind + ": " + why)
		return
	}
	b.since = &since
	b.tip = b.all[len(b.all)-1]
	b.rec.Kind, b.rec.Parent, b.rec.Base = b.o.Kind, since.ID, since.Base
}

// base is what the backup can be the difference to, or why there is nothing.
func (b *backup) base(snaps []disk.Snapshot) (since disk.Backup, why string) {
	if len(b.all) == 0 {
		return since, "there is none yet"
	}
	tip := b.all[len(b.all)-1]
	since = tip
	if b.o.Kind == disk.BackupDifferential {
		for _, one := range b.all {
			if one.Base == tip.Base && one.Kind == disk.BackupFull {
				since = one
			}
		}
	}
	index := func(name string) int {
		return slices.IndexFunc(snaps, func(s disk.Snapshot) bool { return s.Name == name })
	}
	at := index(since.Source)
	switch {
	case since.Pool != b.volume.Pool:
		return since, "the last is of a volume in pool " + since.Pool
	case at < 0:
		return since, "the volume has no snapshot " + since.Source + " any more"
	case b.o.Snapshot != "" && index(b.o.Snapshot) <= at:
		return since, "snapshot " + b.o.Snapshot + " is not younger than backup " + since.ID
	}
	return since, ""
}
