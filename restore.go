// Restore: a backup into a new image, which becomes a volume, or takes a volume's
// place, only when it is whole.

package vmdisk

import (
	"context"
	"errors"
	"fmt"

	"github.com/google/uuid"
	"github.com/vmdisk/vmdisk/disk"
)

// RestoreOptions say where a backup is restored to.
type RestoreOptions struct {
	// To is the volume that it replaces; "" makes a new one.
	To string
	// ID is that of the new volume; "" is a new UUID.
	ID string
	// Instant makes a new volume that is there at once, and reads from the backup what it
	// has not yet of its own; [Host.FlattenVolume] brings that.
	Instant bool
}

// restore is the state that the steps share.
type restore struct {
	chain
	all     []disk.Backup
	to      disk.Name
	size    int64 // that the volume has in the end
	replace bool
	instant bool
	old     string // RBD's ID of what is replaced
}

// RestoreBackup restores a backup into a new image. Only when that is whole, each
// block compared with its checksum, it gets the name of the volume; one that was
// interrupted leaves the volume as it was: a repair, or the next work on either,
// removes the rest. Until it is over, the volume is its own ([disk.ErrInUse]).
//
// A volume that is to be replaced keeps its ID and its size, is not in use by
// anybody or attached ([disk.ErrInUse]), not smaller than the backup
// ([disk.ErrInvalid]) and without snapshots but those of backups
// ([disk.ErrHasSnapshots]); what it was goes to the trash. The next backup of it is
// a full one: it has not the snapshots that a difference could be to.
//
// A backup that is not whole, or whose base is gone, is [disk.ErrInvalid]; a block
// with a wrong checksum [disk.ErrCorrupt], with its offset.
//
// An instant restore is a clone of the backup, which takes no time and is not compared with
// its checksums; [Host.VerifyBackups] does that. The user of volumes, as whom QEMU opens
// them, must be allowed to read the pool of backups ([InitOptions.InstantRestore]), else it
// is [disk.ErrPermission]. Until the volume is flattened or removed, the backup's snapshot
// is protected, so that neither [Host.RemoveBackup] nor Cinder removes it.
//
// Similar to: cinder backup-restore.
func (h *Host) RestoreBackup(ctx context.Context, id string, o RestoreOptions) (disk.Volume, error) {
	const op = "restore"
	r := &restore{chain: chain{h: h}, replace: o.To != "", instant: o.Instant}
	defer r.end()
	err := r.prepare(ctx, id, o)
	if err != nil {
		return disk.Volume{}, failed(op, "backup "+id, err)
	}
	t := r.task(op, r.to.String())
	t.check, t.steps = r.check, r.steps
	if err := h.perform(ctx, t); err != nil {
		return disk.Volume{}, r.orElsewhere(err)
	}
	v, err := r.cluster.Volume(context.WithoutCancel(ctx), r.to)
	return v, failed(op, "backup "+id, err)
}

// orElsewhere says what can be done where a volume cannot be replaced.
func (r *restore) orElsewhere(err error) error {
	var e *Error
	if r.replace && errors.As(err, &e) && e.Next == "" && (errors.Is(err, disk.ErrHasSnapshots) || errors.Is(err, disk.ErrInUse)) {
		e.Next = "to a new volume:  vmdisk backup restore " + r.backup.ID
	}
	return err
}

// prepare finds the backup and what it is restored to.
func (r *restore) prepare(ctx context.Context, id string, o RestoreOptions) (err error) {
	if err := r.find(ctx, id); err != nil {
		return err
	}
	switch {
	case o.To != "" && o.ID != "":
		return badInput("a restore is either to a volume or to a new one with an ID")
	case o.To != "" && o.Instant:
		return badInput("an instant restore makes a new volume and replaces none")
	case o.To != "":
		o.ID = o.To
	case o.ID == "":
		o.ID = uuid.NewString()
	}
	r.to, err = backupVolume(o.ID)
	return err
}

// check looks again, now that nobody else works on the backups or the volume.
func (r *restore) check(ctx context.Context) (err error) {
	if err := r.find(ctx, r.backup.ID); err != nil {
		return err
	}
	if err := usable(r.backup); err != nil {
		return err
	}
	r.size = r.backup.RestoredSize()
	if r.all, err = r.store.Backups(ctx, r.h.cfg.BackupPool, r.backup.Volume); err != nil {
		return err
	}
	if r.replace {
		err = r.checkReplaced(ctx)
	} else {
		err = r.cluster.Absent(ctx, r.to)
	}
	if err != nil {
		return err
	}
	if r.instant {
		return r.readable(ctx)
	}
	err = r.cluster.Absent(ctx, disk.Restoring(r.to))
	if errors.Is(err, disk.ErrExists) { // of a journal that was lost
		err = &Error{Op: "restore", Object: "backup " + r.backup.ID, Err: err, Next: "it is an orphan:  vmdisk repair --remove-orphans"}
	}
	return err
}

// usable refuses a backup that cannot be read.
func usable(b disk.Backup) error {
	object := "backup " + b.ID
	switch b.State {
	case disk.BackupIncomplete:
		return &disk.Error{Object: object, Kind: disk.ErrInvalid, Reason: "is not complete: its making or its removal was interrupted"}
	case disk.BackupBroken:
		return &disk.Error{Object: object, Kind: disk.ErrInvalid,
			Reason: fmt.Sprintf("its chain is broken: %s has no snapshot %s any more", b.Base, b.Snapshot)}
	}
	return nil
}

// checkReplaced refuses a volume that cannot be replaced.
func (r *restore) checkReplaced(ctx context.Context) error {
	has, err := r.cluster.Size(ctx, r.to)
	if err != nil {
		return err
	}
	if has < r.backup.Size {
		return &disk.Error{Op: "restore to", Object: r.to.String(), Kind: disk.ErrInvalid,
			Reason: fmt.Sprintf("it has %s, the backup %s", disk.FormatSize(has), disk.FormatSize(r.backup.Size))}
	}
	r.size = has
	if r.old, err = r.cluster.ImageID(ctx, r.to); err != nil {
		return err
	}
	return r.cluster.Replaceable(ctx, r.to)
}

func (r *restore) steps() []step {
	if r.instant {
		return r.instantly()
	}
	part := disk.Restoring(r.to)
	onOld := func(v verb) action { return action{Verb: v, Image: r.to.String(), ID: r.old} }
	steps := []step{
		{name: "create", detail: says(part.String() + ", " + disk.FormatSize(r.size)),
			do:   func(ctx context.Context) error { return r.cluster.CreateVolumeImage(ctx, part, r.backup.Size) },
			back: []action{{Verb: actRemove, Image: part.String()}}},
		{name: "copy", detail: says(r.backup.Base + "@" + r.backup.Snapshot), do: r.copy},
	}
	if r.size != r.backup.Size {
		steps = append(steps, step{name: "grow", detail: says(disk.FormatSize(r.backup.Size) + " → " + disk.FormatSize(r.size)),
			do: func(ctx context.Context) error {
				_, err := r.cluster.Grow(ctx, part, r.size)
				return err
			}})
	}
	if r.replace {
		steps = append(steps, step{name: "aside", detail: says(r.to.String() + " → trash"), do: r.aside, back: []action{onOld(actBringBack)}})
	}
	steps = append(steps, step{name: "name", detail: r.to.String, commit: true,
		do: func(ctx context.Context) error { return r.cluster.Rename(ctx, part, r.to) },
		on: []action{{Verb: actRename, Image: part.String(), To: r.to.String()}}})
	if r.replace {
		steps = append(steps, r.h.forward(&r.session, "tidy", "snapshots of backups on what "+r.to.Image+" was", onOld(actTidyTrash)))
	}
	return steps
}

func (r *restore) copy(ctx context.Context) error {
	return r.h.unlessFenced(r.cluster, r.store, func() error {
		_, err := r.store.RestoreBackup(ctx, r.h.cfg.BackupPool, r.all, r.backup, r.cluster, disk.Restoring(r.to),
			r.h.progress("restore", "backup "+r.backup.ID, "copy"))
		return err
	})
}

// aside moves the volume out of the way, unless somebody opened it meanwhile.
func (r *restore) aside(ctx context.Context) error {
	err := r.cluster.Replaceable(ctx, r.to)
	if err == nil {
		err = r.cluster.MoveToTrash(ctx, r.to, 0)
	}
	return err
}

// bringBack takes a volume out of the trash, unless it is there.
func bringBack(ctx context.Context, cluster *disk.Cluster, n disk.Name, id string) error {
	err := cluster.Absent(ctx, n)
	if errors.Is(err, disk.ErrExists) {
		return nil
	}
	if err == nil {
		err = gone(cluster.RestoreTrashed(ctx, disk.Trashed{ID: id, Pool: n.Pool, Image: n.Image}))
	}
	return err
}

// tidyTrashed removes the snapshots of backups on what had a volume's name before.
func tidyTrashed(ctx context.Context, cluster *disk.Cluster, n disk.Name, id string) error {
	t := disk.Trashed{ID: id, Pool: n.Pool, Image: n.Image}
	return gone(cluster.DropTrashedSnapshots(ctx, t, disk.IsBackupSnapshot))
}
