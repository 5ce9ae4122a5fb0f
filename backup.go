// Backup: a volume's state at one moment, into the pool of backups, as cinder-backup
// keeps it.

package vmdisk

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/domain"
)

// BackupOptions say what backup is made.
type BackupOptions struct {
	ID string // "" is a new UUID
	// Kind is [disk.BackupFull] (or ""), [disk.BackupIncremental], which holds what
	// changed since the last backup, or [disk.BackupDifferential], since the last
	// full one.
	Kind string
	// Snapshot of the volume to back up; "" takes one now.
	Snapshot string
	// NoFreeze leaves a running guest alone.
	NoFreeze bool
	// Keep is how many backups of the volume there are at most afterwards; the
	// oldest are removed. 0 is any number.
	Keep int
}

// backup is the state that the steps share.
type backup struct {
	session
	h      *Host
	op     string
	store  *disk.Cluster // of backups; session.cluster has the volumes
	pool   string
	volume disk.Name
	o      BackupOptions

	all    []disk.Backup // of the volume
	rec    disk.Backup
	since  *disk.Backup // what it is the difference to
	tip    disk.Backup  // the last on its base
	vm     string       // running here, to be frozen
	frozen *domain.Frozen
	lost   []disk.Backup // left by runs that were interrupted
}

// CreateBackup backs a volume up, attached or not. A guest that runs on this host
// and has an agent is frozen while the snapshot is taken, for 20 s at most; else the
// backup is as after a power cut, and a Note says so. What is copied is what
// changed, see [disk.Cluster.FillBackup].
//
// An incremental or differential backup whose base is gone, because somebody
// removed a snapshot or the volume was restored, becomes a full one, and a Note
// says why. On failure nothing is left. What a run that was killed has left is
// removed by the next on that volume; it never counts as a backup. A backup of the
// same volume that is under way is [disk.ErrInUse] and says whose.
//
// The snapshot stays on the volume, under the name that it has in the pool of
// backups: the next incremental one needs it, and so does Cinder.
//
// Similar to: cinder backup-create --force.
func (h *Host) CreateBackup(ctx context.Context, volume string, o BackupOptions) (disk.Backup, error) {
	const op = "backup"
	b := &backup{h: h, op: op, o: o, pool: h.cfg.BackupPool}
	defer b.end()
	if err := b.check(ctx, volume); err != nil {
		return disk.Backup{}, failed(op, volume, err)
	}
	ctx, lock, err := b.store.LockChain(ctx, b.pool, disk.VolumeID(b.volume.Image), "backup "+b.o.ID)
	if err != nil {
		return disk.Backup{}, failed(op, volume, lacking(err, b.store, b.pool))
	}
	err = b.prepare(ctx)
	if err == nil {
		err = h.run(ctx, op, b.volume.String(), b.steps()...)
	}
	return b.rec, failed(op, volume, unlock(ctx, lock, err))
}

// unlock ends the work on a chain: a lost lock is why it was cancelled.
func unlock(ctx context.Context, lock *disk.ChainLock, err error) error {
	if cause := context.Cause(ctx); errors.Is(cause, disk.ErrTimeout) {
		err = errors.Join(cause, err)
	}
	if released := lock.Release(); err == nil {
		err = released
	}
	return err
}

func (b *backup) note(kind EventKind, text string) {
	b.h.emit(Event{Kind: kind, Op: b.op, Object: b.volume.String(), Step: "note", Detail: text})
}

func (b *backup) steps() []step {
	base := disk.Name{Pool: b.pool, Image: b.rec.Base}
	at := base
	at.Snap = b.rec.Snapshot
	var steps []step
	for _, one := range b.lost {
		steps = append(steps, b.h.dropSteps(b.cluster, b.store, one)...)
	}
	steps = append(steps,
		step{name: "begin", detail: says("backup " + b.rec.ID), do: b.begin, undo: b.forget},
		step{name: "base", detail: base.String, do: b.makeBase, undo: b.unmakeBase})
	if b.vm != "" {
		steps = append(steps, step{name: "freeze", detail: says(b.vm), do: b.freeze, undo: b.thaw})
	}
	if b.o.Snapshot == "" {
		steps = append(steps, step{name: "snapshot", detail: b.volume.String, do: b.snapshot, undo: b.removeSnapshot})
	}
	if b.vm != "" {
		steps = append(steps, step{name: "thaw", detail: says(b.vm), do: b.thaw})
	}
	steps = append(steps,
		step{name: "copy", detail: b.describe, do: b.copy},
		step{name: "seal", detail: base.String,
			do:   b.onStore(func(ctx context.Context) error { return b.store.CreateSnapshot(ctx, at) }),
			undo: func(ctx context.Context) error { return gone(b.store.RemoveSnapshot(ctx, at)) }},
		step{name: "metadata", detail: says("backup." + b.rec.ID + ".meta"),
			do:   b.onStore(func(ctx context.Context) error { return b.store.WriteBackupMeta(ctx, b.pool, b.rec) }),
			undo: func(ctx context.Context) error { return b.store.RemoveBackupMeta(ctx, b.pool, b.rec.ID) }},
		step{name: "complete", detail: says("backup " + b.rec.ID), do: b.complete, commit: true})
	return append(steps, b.retention()...)
}

// onStore is a step's work in the pool of backups, whose user may lack a cap.
func (b *backup) onStore(f func(context.Context) error) func(context.Context) error {
	return func(ctx context.Context) error { return lacking(f(ctx), b.store, b.pool) }
}

// retention removes what is more than is to be kept, the oldest first.
func (b *backup) retention() []step {
	var steps []step
	if b.o.Keep > 0 {
		for _, one := range b.all[:max(0, len(b.all)+1-b.o.Keep)] {
			steps = append(steps, b.h.dropSteps(b.cluster, b.store, one)...)
		}
	}
	return steps
}

func (b *backup) describe() string {
	if b.rec.Bytes == 0 && b.rec.State == disk.BackupIncomplete {
		return b.rec.Kind + ", of " + disk.FormatSize(b.rec.Size)
	}
	return fmt.Sprintf("%s, %s of %s", b.rec.Kind, disk.FormatSize(b.rec.Bytes), disk.FormatSize(b.rec.Size))
}

func (b *backup) begin(ctx context.Context) error {
	return lacking(b.store.WriteBackup(ctx, b.pool, b.rec), b.store, b.pool)
}

func (b *backup) forget(ctx context.Context) error { return b.store.ForgetBackup(ctx, b.pool, b.rec) }

// makeBase makes the image for a full backup; for another it has the one that is
// there be as the last backup left it.
func (b *backup) makeBase(ctx context.Context) error {
	base := disk.Name{Pool: b.pool, Image: b.rec.Base}
	if b.since == nil {
		return lacking(b.store.CreateBase(ctx, base, b.rec.Size), b.store, b.pool)
	}
	_, err := b.store.Rewind(ctx, base, b.tip.Snapshot)
	return lacking(err, b.store, b.pool)
}

func (b *backup) unmakeBase(ctx context.Context) error {
	base := disk.Name{Pool: b.pool, Image: b.rec.Base}
	if b.since == nil {
		return b.store.RemoveDisk(ctx, base)
	}
	_, err := b.store.Rewind(ctx, base, b.tip.Snapshot)
	return err
}

func (b *backup) snapshot(ctx context.Context) error {
	n := b.volume
	n.Snap = b.rec.Source
	if err := b.cluster.CreateSnapshot(ctx, n); err != nil {
		return lacking(err, b.cluster, n.Pool)
	}
	b.rec.Created = latest(b.rec.Created, time.Now().UTC().Truncate(time.Microsecond))
	return nil
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

func (b *backup) removeSnapshot(ctx context.Context) error {
	n := b.volume
	n.Snap = b.rec.Source
	return gone(b.cluster.RemoveSnapshot(ctx, n))
}

func (b *backup) copy(ctx context.Context) error {
	snaps, err := b.cluster.Snapshots(ctx, b.volume)
	if err != nil {
		return err
	}
	for i, s := range snaps {
		if s.Name == b.rec.Source { // it may have been resized since we looked
			b.rec.Size, b.rec.First = s.Size, i == 0
		}
	}
	f := disk.Fill{From: b.cluster, Pool: b.pool, Progress: b.h.progress(b.op, b.volume.String(), "copy"),
		First: func(snapshot string) bool {
			return slices.ContainsFunc(b.all, func(one disk.Backup) bool { return one.Source == snapshot && one.First })
		}}
	if b.since != nil {
		f.Since = b.since.Source
	}
	b.rec.Bytes, err = b.store.FillBackup(ctx, b.rec, f)
	return lacking(err, b.store, b.pool)
}

func (b *backup) complete(ctx context.Context) error {
	done := b.rec.Done()
	if err := b.store.WriteBackup(ctx, b.pool, done); err != nil {
		return err
	}
	b.rec = done
	return nil
}

// lacking says which caps a user needs where it was refused.
func lacking(err error, c *disk.Cluster, pool string) error {
	if !errors.Is(err, disk.ErrPermission) {
		return err
	}
	return &disk.Error{Op: "use", Object: "pool " + pool, Kind: disk.ErrPermission, Err: err,
		Reason: fmt.Sprintf("client.%s is refused; it needs the caps mon 'profile rbd' and osd 'profile rbd pool=%s'", c.User(), pool)}
}
