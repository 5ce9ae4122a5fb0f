// The trash: where an image waits, out of sight and restorable, before it is
// removed for good.

package disk

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/ceph/go-ceph/rados"
	"github.com/ceph/go-ceph/rbd"
)

// Trashed is an image in the trash.
type Trashed struct {
	ID      string    `json:"trash_id"` // of RBD; two in the trash can have one name
	Pool    string    `json:"pool"`
	Image   string    `json:"image"` // the name that it had
	Deleted time.Time `json:"deleted"`
	Expires time.Time `json:"expires"` // until then it is kept from being purged
}

// MoveToTrash moves an image, with its snapshots, into the trash, where it can be
// restored from and is kept for at least keep. One that is open is [ErrInUse] and
// the error names who has it.
//
// Similar to: rbd trash mv --expires-at.
func (c *Cluster) MoveToTrash(ctx context.Context, n Name, keep time.Duration) error {
	n.Snap = ""
	by, err := c.Watchers(ctx, n)
	if ignore(err, ErrNotFound) != nil { // one on its way into the trash has no name any more
		return err
	}
	if len(by) > 0 {
		return inUse("move to trash", n, by)
	}
	return c.moveToTrash(ctx, n, keep)
}

func (c *Cluster) moveToTrash(ctx context.Context, n Name, keep time.Duration) error {
	return c.pool(ctx, n.Pool, func(io *rados.IOContext) error {
		return wrap("move to trash", n.String(), rbd.GetImage(io, n.Image).Trash(keep))
	})
}

// FinishTrash is [Cluster.MoveToTrash] for a process that died in it, wherever: what
// is half in the trash cannot be taken out of it. One that is there is fine.
func (c *Cluster) FinishTrash(ctx context.Context, n Name, keep time.Duration) error {
	if err := ignore(c.WaitUnused(ctx, n), ErrNotFound); err != nil {
		return err
	}
	return ignore(c.moveToTrash(ctx, n, keep), ErrNotFound)
}

// Trash lists what is in a pool's trash, by name and then by age.
//
// Similar to: rbd trash ls.
func (c *Cluster) Trash(ctx context.Context, pool string) ([]Trashed, error) {
	all := []Trashed{}
	err := c.pool(ctx, pool, func(io *rados.IOContext) error {
		list, err := rbd.GetTrashList(io)
		if err != nil {
			return wrap("list", "trash of pool "+pool, err)
		}
		for _, t := range list {
			all = append(all, Trashed{ID: t.Id, Pool: pool, Image: t.Name,
				Deleted: t.DeletionTime.UTC(), Expires: t.DefermentEndTime.UTC()})
		}
		return nil
	})
	slices.SortFunc(all, func(a, b Trashed) int {
		if by := strings.Compare(a.Image, b.Image); by != 0 {
			return by
		}
		return a.Deleted.Compare(b.Deleted)
	})
	return all, err
}

// RestoreTrash takes the image that had this name out of the trash and gives it
// the name back; of several, the one that was deleted last. If there is none it is
// [ErrNotFound], if the name is taken [ErrExists].
//
// Similar to: rbd trash restore.
func (c *Cluster) RestoreTrash(ctx context.Context, n Name) error {
	t, err := c.InTrash(ctx, n)
	if err != nil {
		return err
	}
	return c.RestoreTrashed(ctx, t)
}

// RestoreTrashed takes an entry out of the trash and gives the image its name back.
// Run again after it was interrupted, it finishes; one that is not in the trash any
// more is [ErrNotFound].
//
// Similar to: rbd trash restore.
func (c *Cluster) RestoreTrashed(ctx context.Context, t Trashed) error {
	return c.pool(ctx, t.Pool, func(io *rados.IOContext) error {
		return wrap("restore", t.Pool+"/"+t.Image, rbd.TrashRestore(io, t.ID, t.Image))
	})
}

// ImageID is the ID that RBD gave to an image, which it keeps in the trash.
func (c *Cluster) ImageID(ctx context.Context, n Name) (id string, err error) {
	err = c.pool(ctx, n.Pool, func(io *rados.IOContext) error {
		id, err = imageID(io, n)
		return err
	})
	return id, err
}

// InTrash is the image of a name that was moved to the trash last; [ErrNotFound] if
// there is none.
func (c *Cluster) InTrash(ctx context.Context, n Name) (Trashed, error) {
	all, err := c.Trash(ctx, n.Pool)
	if err != nil {
		return Trashed{}, err
	}
	for _, t := range slices.Backward(all) { // the youngest of a name is the last
		if t.Image == n.Image {
			return t, nil
		}
	}
	return Trashed{}, &Error{Object: n.String(), Kind: ErrNotFound, Reason: "is not in the trash"}
}

// stillTrashed is [ErrNotFound] if an entry is not in the trash any more.
func (c *Cluster) stillTrashed(ctx context.Context, t Trashed) error {
	all, err := c.Trash(ctx, t.Pool)
	if err == nil && !slices.ContainsFunc(all, func(o Trashed) bool { return o.ID == t.ID }) {
		err = &Error{Object: t.Pool + "/" + t.Image, Kind: ErrNotFound, Reason: "is not in the trash"}
	}
	return err
}

// PurgeTrash removes for good what one entry of the trash holds. One that is to
// be kept longer is [ErrPermission] unless force is set; one with snapshots is
// [ErrHasSnapshots].
//
// Similar to: rbd trash rm.
func (c *Cluster) PurgeTrash(ctx context.Context, t Trashed, force bool) error {
	return c.pool(ctx, t.Pool, func(io *rados.IOContext) error {
		if there, err := hasHeader(io, t.ID, noSnap); err == nil && !there { // it is half purged
			return purgeEntry(io, t)
		}
		err := waitUnused(ctx, func() error { // who purged it may have died just now
			return wrap("remove", t.Pool+"/"+t.Image+" (in the trash)", rbd.TrashRemove(io, t.ID, force))
		})
		var e *Error
		if errors.As(err, &e) && is(e, ErrPermission) && !force && time.Now().Before(t.Expires) {
			e.Reason = "is kept until " + t.Expires.Format(time.RFC3339)
		}
		return err
	})
}

// purgeEntry removes the entry of an image of which nothing else is left.
func purgeEntry(io *rados.IOContext, t Trashed) error {
	err := ignore(io.Delete("rbd_object_map."+t.ID), ErrNotFound)
	if err == nil {
		err = call(io, trashObject, "trash_remove", t.ID)
	}
	return wrap("remove", t.Pool+"/"+t.Image+" (in the trash)", err)
}

// TrashedRemovable says who is in the way of purging an image: clones, and snapshots
// other than those in own.
func (c *Cluster) TrashedRemovable(ctx context.Context, t Trashed, own ...string) error {
	n := Name{Pool: t.Pool, Image: t.Image}
	err := c.viewID(ctx, n, t.ID, func(img *rbd.Image) error { return judge(img, n, " (in the trash)", own) })
	return ignore(err, ErrNotFound) // it is half purged
}

// DropTrashedSnapshots removes the snapshots of an image in the trash to which which
// says yes, or all if it is nil, so that the image can be purged. One with clones is
// [ErrHasClones] and names them.
//
// Similar to: rbd snap purge --image-id.
func (c *Cluster) DropTrashedSnapshots(ctx context.Context, t Trashed, which func(name string) bool) error {
	n := Name{Pool: t.Pool, Image: t.Image}
	if err := c.stillTrashed(ctx, t); err != nil { // it can be opened by its ID all the same
		return err
	}
	return c.pool(ctx, t.Pool, func(io *rados.IOContext) error {
		img, err := openTrashed(io, n, t.ID, rbd.OpenImageById)
		if err != nil {
			return err
		}
		defer closeImage(img, time.Now())
		if err := refuseClones(img, n, " (in the trash)"); err != nil {
			return err
		}
		names, err := snapshots(img, n)
		for _, s := range names {
			if which != nil && !which(s) {
				continue
			}
			err = errors.Join(err, dropSnapshot(img, n, s))
		}
		return errors.Join(err, dropLeft(img, n))
	})
}
