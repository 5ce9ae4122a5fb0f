// What vmdisk notes of each backup: one key of an object beside the backups,
// where it disturbs nobody, and Cinder's own metadata object.

package disk

import (
	"context"
	"encoding/json"
	"slices"
	"time"

	"github.com/ceph/go-ceph/rados"
)

// backupDirectory has a key for each backup of vmdisk's making. It is one object,
// so that a list needs no listing of the pool.
const backupDirectory = "vmdisk.backups"

// The states of a backup.
const (
	BackupComplete   = "complete"
	BackupIncomplete = "incomplete" // being made, or its making was interrupted
	BackupBroken     = "broken"     // complete once, and its snapshot or base was removed behind our back
)

// The kinds of a backup.
const (
	BackupFull         = "full"
	BackupIncremental  = "incremental"  // what changed since the backup before
	BackupDifferential = "differential" // what changed since the last full one
)

// How much of a backup vmdisk has checksums for.
const (
	sumsNone    = ""
	sumsChanged = "changed" // of what changed since the backup before in the chain
	sumsOnly    = "only"    // the same, and of the one before they are not known
	sumsAll     = "all"
)

// Backup is the state of a volume at one moment, kept in another pool. Every
// backup restores by itself whatever becomes of those before it: it is a snapshot
// of the base.
type Backup struct {
	ID       string    `json:"id"`
	Volume   string    `json:"volume"` // the volume's ID
	Pool     string    `json:"pool"`   // the volume's pool
	Kind     string    `json:"kind"`
	Parent   string    `json:"parent"`   // the backup that it is the difference to, or ""
	Bytes    int64     `json:"bytes"`    // written for it
	Size     int64     `json:"size"`     // of the volume, in bytes
	Created  time.Time `json:"created"`  // when the snapshot was taken
	State    string    `json:"state"`    // complete, incomplete or broken
	Base     string    `json:"base"`     // the image in the pool of backups
	Snapshot string    `json:"snapshot"` // of the base
	Source   string    `json:"source"`   // the snapshot of the volume that it was made from
	Frozen   bool      `json:"frozen"`   // the guest's filesystems were frozen for it
	By       string    `json:"by"`       // "vmdisk" or "cinder"
	First    bool      `json:"first"`    // the volume had no snapshot before this one
	Sums     string    `json:"checksums"`
}

// Done is the note on a backup that is whole.
func (b Backup) Done() Backup {
	b.State, b.Sums = BackupComplete, sumsChanged
	if b.Kind == BackupFull {
		b.Sums = sumsAll
	}
	return b
}

// VolumeName is the volume that it was made of.
func (b Backup) VolumeName() Name { return Name{Pool: b.Pool, Image: VolumeName(b.Volume)} }

// at is the backup's content: the snapshot on its base.
func (b Backup) at(pool string) Name { return Name{Pool: pool, Image: b.Base, Snap: b.Snapshot} }

// WriteBackup notes a backup, or what has become of it.
func (c *Cluster) WriteBackup(ctx context.Context, pool string, b Backup) error {
	data, err := json.Marshal(b)
	if err != nil {
		return err
	}
	return c.pool(ctx, pool, func(io *rados.IOContext) error {
		err := io.SetOmap(backupDirectory, map[string][]byte{b.ID: data})
		return wrap("note", "backup "+b.ID, err)
	})
}

// CompleteBackup notes that a backup is whole, unless that is noted. One that is not
// there is [ErrNotFound].
func (c *Cluster) CompleteBackup(ctx context.Context, pool, id string) error {
	b, err := c.noted(ctx, pool, id)
	if err != nil || b.State == BackupComplete {
		return err
	}
	return c.WriteBackup(ctx, pool, b.Done())
}

// noted is what vmdisk noted of a backup; [ErrNotFound] if nothing.
func (c *Cluster) noted(ctx context.Context, pool, id string) (b Backup, err error) {
	err = c.pool(ctx, pool, func(io *rados.IOContext) error {
		all, err := readRecords(io)
		b = all[id]
		if err == nil && b.ID == "" {
			err = &Error{Op: "find", Object: "note on backup " + id, Kind: ErrNotFound}
		}
		return err
	})
	return b, err
}

// HalfBackups are vmdisk's backups that are being made or removed, or were when that
// was interrupted. It opens no image.
func (c *Cluster) HalfBackups(ctx context.Context, pool string) ([]Backup, error) {
	all := []Backup{}
	err := c.pool(ctx, pool, func(io *rados.IOContext) error {
		notes, err := readRecords(io)
		for _, b := range notes {
			if b.State == BackupIncomplete {
				all = append(all, b)
			}
		}
		return err
	})
	slices.SortFunc(all, func(a, b Backup) int { return a.Created.Compare(b.Created) })
	return all, err
}

// forgetBackup removes a backup's key; one that is not there is fine.
func forgetBackup(io *rados.IOContext, id string) error {
	op := rados.CreateWriteOp()
	defer op.Release()
	op.AssertExists()
	op.RmOmapKeys([]string{id})
	err := op.Operate(io, backupDirectory, rados.OperationNoFlag)
	return ignore(wrap("forget", "backup "+id, err), ErrNotFound)
}

// readRecords are the notes on all backups, by ID.
func readRecords(io *rados.IOContext) (map[string]Backup, error) {
	all := map[string]Backup{}
	raw, err := io.GetAllOmapValues(backupDirectory, "", "", 1000)
	if err != nil {
		return all, ignore(wrap("read", "list of backups", err), ErrNotFound)
	}
	for id, data := range raw {
		var b Backup
		if err := json.Unmarshal(data, &b); err != nil {
			return nil, invalid("note on backup "+id, "is damaged: %v", err)
		}
		all[id] = b
	}
	return all, nil
}

// WriteBackupMeta writes the object in which cinder-backup keeps what Cinder's
// database knows of a volume. vmdisk knows little, and none of it makes a restore
// change a volume's name there.
func (c *Cluster) WriteBackupMeta(ctx context.Context, pool string, b Backup) error {
	data, err := json.Marshal(map[string]any{
		"version":              2, // cinder, backup_metadata_version
		"volume-base-metadata": map[string]any{"id": b.Volume, "size": inGiB(b.Size)},
	})
	if err != nil {
		return err
	}
	return c.pool(ctx, pool, func(io *rados.IOContext) error {
		return wrap("write metadata of", "backup "+b.ID, io.WriteFull(backupMeta(b.ID), data))
	})
}

// inGiB is a size in Cinder's unit, rounded up.
func inGiB(size int64) int64 { return (size + GiB - 1) / GiB }
