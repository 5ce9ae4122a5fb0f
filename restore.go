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
}

// restore is the state that the steps share.
type restore struct {
	h              *Host
	volumes, store *disk.Cluster
	all            []disk.Backup
	b              disk.Backup
	to             disk.Name
	size           int64 // that the volume has in the end
	replace        bool
	stale          bool // there is something left of an interrupted restore
	moved          bool
}

// RestoreBackup restores a backup into a new image. Only when that is whole, each
// block compared with its checksum, it gets the name of the volume; one that was
// interrupted leaves the volume as it was, and what it left is removed by the next.
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
// Similar to: cinder backup-restore.
func (h *Host) RestoreBackup(ctx context.Context, id string, o RestoreOptions) (disk.Volume, error) {
	const op = "restore"
	var v disk.Volume
	err := h.withChain(ctx, id, "restore of backup "+id, func(ctx context.Context, c chain) error {
		r := &restore{h: h, volumes: c.volumes, store: c.store, b: c.backup}
		if err := r.prepare(ctx, o); err != nil {
			return orElsewhere(err, id)
		}
		err := h.run(ctx, op, "backup "+id, r.steps()...)
		if err == nil {
			v, err = c.volumes.Volume(context.WithoutCancel(ctx), r.to)
		}
		return err
	})
	return v, failed(op, "backup "+id, err)
}

// orElsewhere says what can be done where a volume cannot be replaced.
func orElsewhere(err error, id string) error {
	if errors.Is(err, disk.ErrHasSnapshots) || errors.Is(err, disk.ErrInUse) {
		return &Error{Op: "restore", Object: "backup " + id, Err: err, Next: "to a new volume:  vmdisk backup restore " + id}
	}
	return err
}

func (r *restore) prepare(ctx context.Context, o RestoreOptions) (err error) {
	if err := usable(r.b); err != nil {
		return err
	}
	r.size = r.b.RestoredSize()
	if r.all, err = r.store.Backups(ctx, r.h.cfg.BackupPool, r.b.Volume); err != nil {
		return err
	}
	switch {
	case o.To != "" && o.ID != "":
		return badInput("a restore is either to a volume or to a new one with an ID")
	case o.To != "":
		err = r.prepareReplace(ctx, o.To)
	default:
		if o.ID == "" {
			o.ID = uuid.NewString()
		}
		if r.to, err = backupVolume(o.ID); err == nil {
			err = lacking(r.volumes.Absent(ctx, r.to), r.volumes, r.to.Pool)
		}
	}
	if err != nil {
		return err
	}
	err = r.volumes.Absent(ctx, disk.Restoring(r.to))
	r.stale = errors.Is(err, disk.ErrExists)
	if r.stale {
		err = nil
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

func (r *restore) prepareReplace(ctx context.Context, to string) (err error) {
	if r.to, err = backupVolume(to); err != nil {
		return err
	}
	r.replace = true
	// A restore that was killed between its last two steps is taken back first.
	displaced, err := r.volumes.Displaced(ctx, r.to)
	if err != nil {
		return lacking(err, r.volumes, r.to.Pool)
	}
	if displaced {
		if err := r.volumes.RestoreTrash(ctx, r.to); err != nil {
			return err
		}
	}
	has, err := r.volumes.Size(ctx, r.to)
	if err != nil {
		return lacking(err, r.volumes, r.to.Pool)
	}
	if has < r.b.Size {
		return &disk.Error{Op: "restore to", Object: r.to.String(), Kind: disk.ErrInvalid,
			Reason: fmt.Sprintf("it has %s, the backup %s", disk.FormatSize(has), disk.FormatSize(r.b.Size))}
	}
	r.size = has
	return r.volumes.Replaceable(ctx, r.to)
}

func (r *restore) steps() []step {
	part := disk.Restoring(r.to)
	var steps []step
	if r.stale {
		steps = append(steps, step{name: "clean", detail: part.String,
			do: func(ctx context.Context) error { return r.volumes.RemoveDisk(ctx, part) }})
	}
	steps = append(steps,
		step{name: "create", detail: says(part.String() + ", " + disk.FormatSize(r.size)),
			do: func(ctx context.Context) error {
				return lacking(r.volumes.CreateVolumeImage(ctx, part, r.b.Size), r.volumes, part.Pool)
			},
			undo: func(ctx context.Context) error { return r.volumes.RemoveDisk(ctx, part) }},
		step{name: "copy", detail: says(r.b.Base + "@" + r.b.Snapshot), do: r.copy})
	if r.size != r.b.Size {
		steps = append(steps, step{name: "grow", detail: says(disk.FormatSize(r.b.Size) + " → " + disk.FormatSize(r.size)),
			do: func(ctx context.Context) error {
				_, err := r.volumes.Grow(ctx, part, r.size)
				return err
			}})
	}
	if r.replace {
		steps = append(steps, step{name: "aside", detail: says(r.to.String() + " → trash"), do: r.aside, undo: r.bringBack})
	}
	steps = append(steps, step{name: "name", detail: r.to.String, commit: true,
		do: func(ctx context.Context) error { return r.volumes.Rename(ctx, part, r.to) }})
	if r.replace {
		steps = append(steps, step{name: "tidy", detail: says("snapshots of backups on what " + r.to.Image + " was"),
			do: func(ctx context.Context) error {
				t, err := r.volumes.InTrash(ctx, r.to)
				if err != nil {
					return err
				}
				return r.volumes.DropTrashedSnapshots(ctx, t, disk.IsBackupSnapshot)
			}})
	}
	return steps
}

func (r *restore) copy(ctx context.Context) error {
	_, err := r.store.RestoreBackup(ctx, r.h.cfg.BackupPool, r.all, r.b, r.volumes, disk.Restoring(r.to),
		r.h.progress("restore", "backup "+r.b.ID, "copy"))
	return err
}

// aside moves the volume out of the way, unless somebody took it meanwhile.
func (r *restore) aside(ctx context.Context) error {
	err := r.volumes.Replaceable(ctx, r.to)
	if err == nil {
		err = r.volumes.MoveToTrash(ctx, r.to, 0)
	}
	r.moved = err == nil || errors.Is(err, disk.ErrTimeout)
	return err
}

func (r *restore) bringBack(ctx context.Context) error {
	if !r.moved {
		return errNothing
	}
	err := r.volumes.Absent(ctx, r.to)
	if errors.Is(err, disk.ErrExists) { // it never went
		return nil
	}
	if err == nil {
		err = r.volumes.RestoreTrash(ctx, r.to)
	}
	return err
}
