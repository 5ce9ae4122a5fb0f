// What a clone leaves on the volume that it was made from: the snapshot it hung
// on, and the volume itself, if that was deleted before and kept for its clones.
// Both are good for nothing once the clone is gone or flattened.

package disk

import (
	"context"
	"slices"
	"strings"

	"github.com/ceph/go-ceph/rados"
	"github.com/ceph/go-ceph/rbd"
)

// Ancestors are the snapshots that a volume leaves behind when it goes or is
// flattened, nearest first: that which Cinder's clone of a volume hangs on, and,
// where that volume is deleted and kept only for it, those further up; or the snapshot of
// the backup that it was restored from at once, which stays. A volume that hangs on an
// image or on a user's snapshot has none. For an image in the trash id says which.
//
// Source: cinder, _get_clone_info and _delete_clone_parent_refs.
func (c *Cluster) Ancestors(ctx context.Context, n Name, id string) ([]Name, error) {
	var all []Name
	from, err := c.ancestor(ctx, n, id)
	for err == nil && from.Image != "" {
		all = append(all, from)
		if !strings.HasSuffix(from.Image, deletedSuffix) {
			break
		}
		var alone bool
		if alone, err = c.isOnlySnapshot(ctx, from); err != nil || !alone {
			break
		}
		from, err = c.ancestor(ctx, Name{Pool: from.Pool, Image: from.Image}, "")
	}
	if len(all) > 0 { // what is further up may be gone, or in the trash
		err = ignore(err, ErrNotFound)
	}
	return all, err
}

// ancestor is the snapshot that a volume hangs on as Cinder's clone, or the zero
// Name. Of a volume that was flattened a snapshot can still hang on it.
func (c *Cluster) ancestor(ctx context.Context, n Name, id string) (Name, error) {
	var from Name
	var snaps []string
	err := c.viewID(ctx, n, id, func(img *rbd.Image) (err error) {
		if from, err = parent(img, n); err == nil {
			snaps, err = snapshots(img, n)
		}
		return err
	})
	for _, s := range snaps {
		if err == nil && from.Image == "" && SnapshotKind(s) == KindClone {
			from, err = c.parentOf(ctx, n, id, s)
			err = ignore(err, ErrNotFound) // one that cannot be opened hangs on nothing
		}
	}
	if from.Snap != CloneSnapshot(n.Image) && !isBackedUp(from) {
		return Name{}, err
	}
	return from, err
}

// isBackedUp says whether a snapshot is a backup, and not what it was made from.
func isBackedUp(n Name) bool { return n.Pool != VolumePool && IsBackupSnapshot(n.Snap) }

func (c *Cluster) isOnlySnapshot(ctx context.Context, n Name) (only bool, err error) {
	err = c.view(ctx, Name{Pool: n.Pool, Image: n.Image}, func(img *rbd.Image) error {
		names, err := snapshots(img, n)
		only = len(names) == 1
		return err
	})
	return only, err
}

// parentOf is what a snapshot hangs on.
func (c *Cluster) parentOf(ctx context.Context, n Name, id, snap string) (from Name, err error) {
	n.Snap = snap
	err = c.viewID(ctx, n, id, func(img *rbd.Image) (err error) {
		from, err = parent(img, n)
		return err
	})
	return from, err
}

// viewID is view for an image in the trash, which has an id and no name; without
// an id it is view.
func (c *Cluster) viewID(ctx context.Context, n Name, id string, f func(*rbd.Image) error) error {
	if id == "" {
		return c.view(ctx, n, f)
	}
	return c.pool(ctx, n.Pool, func(io *rados.IOContext) error {
		img, err := openTrashed(io, n, id, rbd.OpenImageByIdReadOnly)
		if err != nil {
			return err
		}
		defer c.closeLater(img)
		return f(img)
	})
}

// DropAncestor removes a snapshot that a clone hung on and, if its volume was
// deleted before and this was the last that kept it, the volume. One that other
// clones hang on by now stays; what is not there is fine.
func (c *Cluster) DropAncestor(ctx context.Context, n Name) error {
	err := c.RemoveSnapshot(ctx, n)
	if err := ignore(ignore(err, ErrNotFound), ErrHasClones); err != nil {
		return err
	}
	n.Snap = ""
	if !strings.HasSuffix(n.Image, deletedSuffix) {
		return nil
	}
	err = c.removable(ctx, n)
	if err == nil {
		err = c.remove(ctx, n)
	}
	// Something else still keeps it.
	return ignore(ignore(ignore(err, ErrNotFound), ErrHasSnapshots), ErrHasClones)
}

// HalfParted says whether a flattening was cut short at its end: the volume has all
// its data and still points at a snapshot, which does not know of it any more.
// Source: librbd, FlattenRequest.
func (c *Cluster) HalfParted(ctx context.Context, n Name) (bool, error) {
	from, err := c.Parent(ctx, n)
	if err != nil || from.Image == "" {
		return false, err
	}
	known, err := c.clonesOf(ctx, from)
	return err == nil && !slices.Contains(known, n.String()), err
}
