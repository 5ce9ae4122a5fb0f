// Chains of backups as they are found in a pool: the snapshots of each base, and
// what vmdisk noted of them.

package disk

import (
	"cmp"
	"context"
	"slices"

	"github.com/ceph/go-ceph/rados"
	"github.com/ceph/go-ceph/rbd"
)

// Backups lists the backups in a pool, of one volume or ("") of all, by volume and
// in the order in which they were made: vmdisk's and Cinder's.
func (c *Cluster) Backups(ctx context.Context, pool, volume string) ([]Backup, error) {
	names, err := c.imageNames(ctx, pool, func(name string) bool {
		of, _, ok := parseBase(name)
		return ok && (volume == "" || of == VolumeName(volume))
	})
	if err != nil {
		return nil, err
	}
	var notes map[string]Backup
	err = c.pool(ctx, pool, func(io *rados.IOContext) (err error) {
		notes, err = readRecords(io)
		return err
	})
	if err != nil {
		return nil, err
	}
	chains, err := each(ctx, names, func(base string) ([]Backup, error) {
		return c.chain(ctx, Name{Pool: pool, Image: base}, notes)
	})
	if err != nil {
		return nil, err
	}
	all := slices.Concat(chains...)
	for _, b := range notes {
		found := slices.ContainsFunc(all, func(other Backup) bool { return other.ID == b.ID })
		if !found && (volume == "" || b.Volume == volume) {
			if b.State == BackupComplete {
				b.State = BackupBroken
			}
			all = append(all, b)
		}
	}
	slices.SortStableFunc(all, func(a, b Backup) int {
		return cmp.Or(cmp.Compare(a.Volume, b.Volume), a.Created.Compare(b.Created))
	})
	return slices.Clip(append([]Backup{}, all...)), nil
}

// chain is the backups that one base holds, oldest first.
func (c *Cluster) chain(ctx context.Context, base Name, notes map[string]Backup) ([]Backup, error) {
	var all []Backup
	err := c.view(ctx, base, func(img *rbd.Image) error {
		snaps, err := img.GetSnapshotNames()
		if err != nil {
			return wrap("list snapshots of", base.String(), err)
		}
		slices.SortFunc(snaps, func(a, b rbd.SnapInfo) int { return cmp.Compare(a.Id, b.Id) })
		volume, _, _ := parseBase(base.Image)
		for _, s := range snaps {
			id, taken, ok := parseBackupSnapshot(s.Name)
			if !ok {
				continue
			}
			b, noted := notes[id]
			if !noted || b.Base != base.Image {
				b = Backup{ID: id, Volume: VolumeID(volume), Pool: VolumePool, Created: taken, State: BackupComplete,
					Kind: BackupFull, Base: base.Image, Source: s.Name, By: "cinder"}
				if len(all) > 0 {
					b.Kind, b.Parent = BackupIncremental, all[len(all)-1].ID
				}
				if b.Bytes, err = chainBytes(img, base, all, s); err != nil {
					return err
				}
			}
			b.Size, b.Snapshot = int64(s.Size), s.Name
			all = append(all, b)
		}
		return nil
	})
	return all, err
}

// chainBytes is how much Cinder's backup added to its base, in whole objects.
func chainBytes(img *rbd.Image, base Name, before []Backup, s rbd.SnapInfo) (int64, error) {
	from := ""
	if len(before) > 0 {
		from = before[len(before)-1].Snapshot
	}
	if err := img.SetSnapshot(s.Name); err != nil {
		return 0, wrap("read", base.String(), err)
	}
	found, err := wholeDiff(img, base, from, minUnit)
	return found.count() * minUnit, err
}

// nextOf is the first good backup on the same base after b, unless b is the last.
func nextOf(all []Backup, b Backup) (next Backup, last bool) {
	for _, link := range all {
		if link.Base == b.Base && link.State == BackupComplete && link.Created.After(b.Created) {
			return link, false
		}
	}
	return Backup{}, true
}

// FindBackup is the backup with an ID; [ErrNotFound] if there is none.
func (c *Cluster) FindBackup(ctx context.Context, pool, id string) (Backup, error) {
	all, err := c.Backups(ctx, pool, "")
	if err != nil {
		return Backup{}, err
	}
	i := slices.IndexFunc(all, func(b Backup) bool { return b.ID == id })
	if i < 0 {
		return Backup{}, &Error{Op: "find", Object: "backup " + id, Kind: ErrNotFound, Reason: "no such backup in pool " + pool}
	}
	return all[i], nil
}

// CreateBase makes the empty image that a chain is kept in.
//
// Similar to: rbd create.
func (c *Cluster) CreateBase(ctx context.Context, base Name, size int64) error {
	return c.pool(ctx, base.Pool, func(io *rados.IOContext) error { return createImage(io, base, size, volumeOrder) })
}

// RetireBackup notes that a backup does not count any more, the first step of its
// removal. One that is not there is fine.
func (c *Cluster) RetireBackup(ctx context.Context, pool, id string) error {
	b, err := c.FindBackup(ctx, pool, id)
	if err != nil {
		return ignore(err, ErrNotFound)
	}
	b.State = BackupIncomplete
	return c.WriteBackup(ctx, pool, b)
}

// ForgetBackup removes Cinder's metadata of a backup, its checksums and, last, what
// vmdisk noted of it. One of which nothing is noted is fine.
func (c *Cluster) ForgetBackup(ctx context.Context, pool, id string) error {
	b, err := c.noted(ctx, pool, id)
	if err != nil {
		return ignore(err, ErrNotFound)
	}
	return c.pool(ctx, pool, func(io *rados.IOContext) error {
		err := ignore(wrap("remove metadata of", "backup "+id, io.Delete(backupMeta(id))), ErrNotFound)
		if err == nil {
			err = removeSums(ctx, io, id, b.Size)
		}
		if err != nil {
			return err
		}
		return forgetBackup(io, id)
	})
}

// Inherit prepares the removal of a backup: those that are differences to it take
// over its checksums, and become differences to what it is one to. The next on the
// base of a full backup becomes full itself, for the base holds all that it needs.
// Run again it changes nothing, nor does it if there is no such backup.
func (c *Cluster) Inherit(ctx context.Context, pool, id string) error {
	b, err := c.FindBackup(ctx, pool, id)
	if err != nil {
		return ignore(err, ErrNotFound)
	}
	if b.By == "vmdisk" && b.Sums == sumsNone {
		return nil // it was never whole
	}
	all, err := c.Backups(ctx, pool, b.Volume)
	if err != nil {
		return err
	}
	next, last := nextOf(all, b)
	for _, child := range all {
		if child.By != "vmdisk" || child.State != BackupComplete || child.Parent != b.ID {
			continue
		}
		if err := c.takeSums(ctx, pool, all, b, &child); err != nil {
			return err
		}
		child.Parent = b.Parent
		switch {
		case b.Kind == BackupFull && child.ID == next.ID:
			child.Kind = BackupFull
		case b.Kind == BackupFull && !last:
			child.Parent = next.ID
		}
		if err := c.WriteBackup(ctx, pool, child); err != nil {
			return err
		}
	}
	return nil
}

// takeSums lays a backup's checksums over those of the one that it is the
// difference to.
func (c *Cluster) takeSums(ctx context.Context, pool string, all []Backup, b Backup, child *Backup) error {
	switch {
	case child.Sums != sumsChanged:
		return nil
	case b.Sums == sumsNone:
		child.Sums = sumsOnly
		return nil
	}
	child.Sums = b.Sums
	most := b.Size
	for _, below := range all {
		if below.Base == b.Base && below.Created.Before(b.Created) {
			most = max(most, below.Size)
		}
	}
	err := c.pool(ctx, pool, func(io *rados.IOContext) error { return mergeSums(ctx, io, b, *child, most) })
	if is(err, ErrNoSpace) { // to make room, removing must not need any
		child.Sums = sumsOnly
		return nil
	}
	return err
}

// TidyBase makes a base what its last snapshot says, after another was removed, and
// removes one that has no snapshot of a backup any more. One that others have
// snapshots on is then [ErrHasSnapshots] and names them. One that is not there is
// fine.
func (c *Cluster) TidyBase(ctx context.Context, base Name) error {
	last, err := c.lastSnapshot(ctx, base)
	switch {
	case is(err, ErrNotFound):
		return nil
	case err != nil:
		return err
	case last == "":
		return c.RemoveDisk(ctx, base)
	}
	_, err = c.Rewind(ctx, base, last)
	return err
}

// lastSnapshot is the youngest snapshot of a backup on a base, or "".
func (c *Cluster) lastSnapshot(ctx context.Context, base Name) (last string, err error) {
	err = c.view(ctx, base, func(img *rbd.Image) error {
		snaps, err := img.GetSnapshotNames()
		if err != nil {
			return wrap("list snapshots of", base.String(), err)
		}
		var top uint64
		for _, s := range snaps {
			if IsBackupSnapshot(s.Name) && s.Id > top {
				last, top = s.Name, s.Id
			}
		}
		return nil
	})
	return last, err
}
