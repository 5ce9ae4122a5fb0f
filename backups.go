// Looking at backups: what there is, whether it still is what was written, and how
// to tell Cinder of it.

package vmdisk

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/vmdisk/vmdisk/disk"
)

// BackupService is the name by which Cinder knows who made such a backup.
const BackupService = "cinder.backup.drivers.ceph.CephBackupDriver"

// Backups lists the backups of a volume, or ("") of all, by volume and age: those
// of vmdisk and those of Cinder, and what interrupted ones have left.
//
// Similar to: cinder backup-list.
func (h *Host) Backups(ctx context.Context, volume string) ([]disk.Backup, error) {
	const op = "list"
	id := ""
	if volume != "" {
		n, err := backupVolume(volume)
		if err != nil {
			return nil, failed(op, "backups", err)
		}
		id = disk.VolumeID(n.Image)
	}
	store, err := h.backups(ctx)
	if err != nil {
		return nil, failed(op, "backups", err)
	}
	all, err := store.Backups(ctx, h.cfg.BackupPool, id)
	return all, failed(op, "backups", err)
}

// Backup describes one backup.
//
// Similar to: cinder backup-show.
func (h *Host) Backup(ctx context.Context, id string) (disk.Backup, error) {
	c := &chain{h: h}
	err := c.find(ctx, id)
	return c.backup, failed("find", "backup "+id, err)
}

// VerifyBackups reads a backup again, or all complete ones of a volume, and
// compares each block with its checksum. A backup of Cinder's has none; it is
// compared with the snapshot on the volume, if that is still there. Blocks that
// differ are in the results, and the error is then [disk.ErrCorrupt] and names the
// first. It reads everything that the backups hold; one whose backups are changed at
// the same time is [disk.ErrInUse].
func (h *Host) VerifyBackups(ctx context.Context, what string) ([]disk.Verification, error) {
	const op = "verify"
	store, err := h.backups(ctx)
	if err != nil {
		return nil, failed(op, what, err)
	}
	chosen, err := h.choose(ctx, store, what)
	if err != nil {
		return nil, failed(op, what, err)
	}
	results := []disk.Verification{}
	var damaged error
	for _, b := range chosen {
		v, err := h.verify(ctx, op, b)
		if err != nil {
			return results, err
		}
		results = append(results, v)
		if len(v.Bad) > 0 && damaged == nil {
			damaged = &disk.Error{Op: op, Object: "backup " + b.ID, Kind: disk.ErrCorrupt,
				Reason: fmt.Sprintf("%d blocks are not what was backed up, the first at offset %d", len(v.Bad), v.Bad[0].Offset)}
		}
	}
	return results, failed(op, what, damaged)
}

// verify verifies one, while nobody removes it.
func (h *Host) verify(ctx context.Context, op string, b disk.Backup) (v disk.Verification, err error) {
	c := &chain{h: h, backup: b}
	defer c.end()
	if err := c.open(ctx); err != nil {
		return v, failed(op, "backup "+b.ID, err)
	}
	var all []disk.Backup
	t := c.task(op)
	t.check = func(ctx context.Context) error {
		err := c.find(ctx, b.ID)
		if err == nil {
			err = usable(c.backup)
		}
		if err == nil {
			all, err = c.store.Backups(ctx, h.cfg.BackupPool, b.Volume)
		}
		return err
	}
	t.steps = steps(step{name: "verify", detail: func() string { return verified(b, v) },
		do: func(ctx context.Context) (err error) {
			v, err = c.store.VerifyBackup(ctx, h.cfg.BackupPool, all, c.backup, c.cluster, h.progress(op, "backup "+b.ID, "verify"))
			return err
		}})
	err = h.perform(ctx, t)
	return v, err
}

func verified(b disk.Backup, v disk.Verification) string {
	if v.ID == "" {
		return b.Kind + " " + b.ID
	}
	return fmt.Sprintf("%s %s, %d blocks by %s", b.Kind, b.ID, v.Blocks, v.Method)
}

// choose is the backup with an ID, or those of a volume.
func (h *Host) choose(ctx context.Context, store *disk.Cluster, what string) ([]disk.Backup, error) {
	if disk.CheckBackupID(what) == nil {
		b, err := store.FindBackup(ctx, h.cfg.BackupPool, what)
		if err == nil {
			return []disk.Backup{b}, usable(b)
		}
		if !errors.Is(err, disk.ErrNotFound) {
			return nil, err
		}
	}
	n, err := backupVolume(what)
	if err != nil {
		return nil, err
	}
	all, err := store.Backups(ctx, h.cfg.BackupPool, disk.VolumeID(n.Image))
	if err != nil {
		return nil, err
	}
	var good []disk.Backup
	for _, b := range all {
		if b.State == disk.BackupComplete {
			good = append(good, b)
		}
	}
	if len(good) == 0 {
		return nil, &disk.Error{Object: what, Kind: disk.ErrNotFound, Reason: "there is no backup with this ID, nor a complete one of a volume with it"}
	}
	return good, nil
}

// BackupRecord is what tells Cinder of a backup: the record for its import. Cinder
// then lists, restores and removes it as its own.
//
// Similar to: cinder backup-export. Its fields are those of cinder, objects/backup.py.
func (h *Host) BackupRecord(ctx context.Context, id string) (string, error) {
	b, err := h.Backup(ctx, id)
	if err != nil {
		return "", err
	}
	if err := usable(b); err != nil {
		return "", failed("export", "backup "+id, err)
	}
	metadata, err := json.Marshal(map[string]string{"base": b.Base})
	if err != nil {
		return "", failed("export", "backup "+id, err)
	}
	var parent any
	if b.Parent != "" {
		parent = b.Parent
	}
	record, err := json.Marshal(map[string]any{
		"id":                    b.ID,
		"volume_id":             b.Volume,
		"display_name":          "vmdisk " + b.Created.Format(time.DateTime),
		"display_description":   b.Kind + " backup by " + b.By,
		"container":             h.cfg.BackupPool,
		"size":                  b.RestoredSize() / disk.GiB,
		"service":               BackupService,
		"service_metadata":      string(metadata),
		"object_count":          0,
		"parent_id":             parent,
		"snapshot_id":           nil,
		"num_dependent_backups": 0,
		"created_at":            b.Created.Format(time.RFC3339),
		"data_timestamp":        b.Created.Format(time.RFC3339),
	})
	if err != nil {
		return "", failed("export", "backup "+id, err)
	}
	return base64.StdEncoding.EncodeToString(record), nil
}
