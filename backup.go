// Backup: a volume's state at one moment, into the pool of backups, as cinder-backup
// keeps it.

package vmdisk

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/vmdisk/vmdisk/disk"
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
	// oldest are removed, but for those that a volume reads from. 0 is any number.
	Keep int
}

// backup is the state that the steps share.
type backup struct {
	session
	h      *Host
	store  *disk.Cluster // of backups; session.cluster has the volumes
	pool   string
	volume disk.Name
	o      BackupOptions
	named  bool // its ID is the caller's

	all   []disk.Backup // of the volume
	rec   disk.Backup
	since *disk.Backup // what it is the difference to
	tip   disk.Backup  // the last on its base
	still still
	lost  []disk.Backup // that are not whole: somebody removed their snapshots
	old   []disk.Backup // that are more than is to be kept
	seal  disk.SnapshotNumber
}

// CreateBackup backs a volume up, attached or not. A guest that runs on this host
// and has an agent is frozen while the snapshot is taken, for 20 s at most; else the
// backup is as after a power cut, and a Note says so. What is copied is what
// changed, see [disk.Cluster.FillBackup].
//
// An incremental or differential backup whose base is gone, because somebody
// removed a snapshot or the volume was restored, becomes a full one, and a Note
// says why. On failure nothing is left. What a run that was killed has left never
// counts as a backup; a repair removes it, or the next work on that volume's
// backups. A backup, restore, removal or verification of the same volume's that is
// under way is [disk.ErrInUse] and says whose.
//
// The snapshot stays on the volume, under the name that it has in the pool of
// backups: the next incremental one needs it, and so does Cinder.
//
// Similar to: cinder backup-create --force.
func (h *Host) CreateBackup(ctx context.Context, volume string, o BackupOptions) (disk.Backup, error) {
	const op = "backup"
	b := &backup{h: h, o: o, pool: h.cfg.BackupPool}
	defer b.end()
	if err := b.prepare(ctx, volume); err != nil {
		return disk.Backup{}, failed(op, volume, err)
	}
	b.still = still{session: &b.session, h: h, op: op, object: b.volume.String()}
	t := onChain(&b.session, op, b.volume.String(), disk.VolumeID(b.volume.Image), backupLease(b.o.ID))
	t.check, t.steps = b.check, b.steps
	err := h.perform(ctx, t)
	return b.rec, err
}

func (b *backup) note(text string) { b.still.tell(Note, text) }

func (b *backup) steps() []step {
	base := disk.Name{Pool: b.pool, Image: b.rec.Base}
	at := base
	at.Snap = b.rec.Snapshot
	var steps []step
	for _, one := range b.lost {
		steps = append(steps, b.h.dropSteps(&b.session, one)...)
	}
	unmake := action{Verb: actRemove, Image: base.String(), Store: true}
	if b.since != nil {
		unmake = action{Verb: actRewind, Image: base.String() + "@" + b.tip.Snapshot, Store: true}
	}
	steps = append(steps,
		step{name: "begin", detail: says("backup " + b.rec.ID), do: b.begin,
			back: []action{onBackup(actForgetBackup, b.pool, b.rec)}},
		step{name: "base", detail: base.String, do: b.makeBase, back: []action{unmake}})
	if b.o.Snapshot == "" {
		steps = append(steps, b.still.steps()...)
	}
	steps = append(steps,
		step{name: "copy", detail: b.describe, do: b.copy},
		step{name: "seal", detail: base.String,
			do:   func(ctx context.Context) error { return b.store.TakeSnapshot(ctx, at, b.seal) },
			back: []action{{Verb: actRemoveSnap, Image: at.String(), Store: true}}},
		step{name: "metadata", detail: says("backup." + b.rec.ID + ".meta"), do: b.describeToCinder},
		step{name: "complete", detail: says("backup " + b.rec.ID), do: b.complete, commit: true,
			on: []action{onBackup(actCompleteBackup, b.pool, b.rec)}})
	for _, one := range b.old {
		steps = append(steps, b.h.dropSteps(&b.session, one)...)
	}
	return steps
}

// onBackup is an action on a backup in the pool.
func onBackup(v verb, pool string, b disk.Backup) action {
	return action{Verb: v, Image: pool + "/" + b.Base, Backup: b.ID, Store: true}
}

func (b *backup) describe() string {
	if b.rec.Bytes == 0 && b.rec.State == disk.BackupIncomplete {
		return b.rec.Kind + ", of " + disk.FormatSize(b.rec.Size)
	}
	return fmt.Sprintf("%s, %s of %s", b.rec.Kind, disk.FormatSize(b.rec.Bytes), disk.FormatSize(b.rec.Size))
}

// begin asks for the numbers of the snapshots, too, which come while the base is made.
func (b *backup) begin(ctx context.Context) error {
	b.seal = b.store.ReserveSnapshot(b.pool)
	b.still.reserve()
	return b.write(ctx)
}

// write notes the backup as it is known by now.
func (b *backup) write(ctx context.Context) error { return b.store.WriteBackup(ctx, b.pool, b.rec) }

// makeBase makes the image for a full backup; for another it has the one that is
// there be as the last backup left it.
func (b *backup) makeBase(ctx context.Context) error {
	base := disk.Name{Pool: b.pool, Image: b.rec.Base}
	if b.since == nil {
		return b.store.CreateBase(ctx, base, b.rec.Size)
	}
	_, err := b.store.Rewind(ctx, base, b.tip.Snapshot)
	return err
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
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
	b.rec.Created, b.rec.Frozen = latest(b.rec.Created, b.still.taken), b.still.held
	if err := b.write(ctx); err != nil { // its size leads to its checksums
		return err
	}
	f := disk.Fill{From: b.cluster, Pool: b.pool, Progress: b.h.progress("backup", b.volume.String(), "copy"),
		First: func(snapshot string) bool {
			return slices.ContainsFunc(b.all, func(one disk.Backup) bool { return one.Source == snapshot && one.First })
		}}
	if b.since != nil {
		f.Since = b.since.Source
	}
	rec, written := b.rec, int64(0)
	err = b.h.unlessFenced(b.cluster, b.store, func() (err error) {
		written, err = b.store.FillBackup(ctx, rec, f)
		return err
	})
	if err == nil {
		b.rec.Bytes = written
	}
	return err
}

// describeToCinder notes all that is known of the backup, ours and what Cinder reads.
func (b *backup) describeToCinder(ctx context.Context) error {
	if err := b.write(ctx); err != nil {
		return err
	}
	return b.store.WriteBackupMeta(ctx, b.pool, b.rec)
}

func (b *backup) complete(ctx context.Context) error {
	err := b.store.CompleteBackup(ctx, b.pool, b.rec.ID)
	if err == nil {
		b.rec = b.rec.Done()
	}
	return err
}
