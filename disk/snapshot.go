// Snapshots of any image: taken, protected, listed, rolled back to, removed.

package disk

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/ceph/go-ceph/rados"
	"github.com/ceph/go-ceph/rbd"
)

// Snapshot is a snapshot of an image.
type Snapshot struct {
	Name      string    `json:"name"`
	Size      int64     `json:"size"` // the image's size then, in bytes
	Created   time.Time `json:"created"`
	Protected bool      `json:"protected"`
	Clones    []string  `json:"clones"` // POOL/IMAGE
}

// Snapshots describes an image's snapshots, oldest first.
//
// Similar to: rbd snap ls and rbd children.
func (c *Cluster) Snapshots(ctx context.Context, n Name) ([]Snapshot, error) {
	n.Snap = ""
	all := []Snapshot{}
	err := c.view(ctx, n, func(img *rbd.Image) error {
		list, err := userSnapshots(img, n)
		if err != nil {
			return err
		}
		slices.SortFunc(list, func(a, b rbd.SnapInfo) int { return int(int64(a.Id) - int64(b.Id)) })
		for _, info := range list {
			s, err := c.describeSnapshot(ctx, img, n, info)
			if err != nil {
				return err
			}
			all = append(all, s)
		}
		return nil
	})
	return all, err
}

func (c *Cluster) describeSnapshot(ctx context.Context, img *rbd.Image, n Name, info rbd.SnapInfo) (Snapshot, error) {
	n.Snap = info.Name
	s := Snapshot{Name: info.Name, Size: int64(info.Size)}
	taken, err := img.GetSnapTimestamp(info.Id)
	if err != nil {
		return s, wrap("read time of", n.String(), err)
	}
	s.Created = time.Unix(taken.Sec, taken.Nsec).UTC()
	if s.Protected, err = img.GetSnapshot(info.Name).IsProtected(); err != nil {
		return s, wrap("read protection of", n.String(), err)
	}
	s.Clones, err = c.clonesOf(ctx, n)
	return s, err
}

// clonesOf lists the clones of one snapshot as POOL/IMAGE.
func (c *Cluster) clonesOf(ctx context.Context, n Name) ([]string, error) {
	all := []string{}
	err := c.view(ctx, n, func(img *rbd.Image) error {
		found, err := clones(img, n)
		all = append(all, found...)
		return err
	})
	if !is(err, ErrNotFound) {
		return all, err
	}
	// One that is there and cannot be opened (see checkWhole) has no clones.
	whole := Name{Pool: n.Pool, Image: n.Image}
	return all, c.view(ctx, whole, func(img *rbd.Image) error {
		names, listErr := snapshots(img, whole)
		if listErr == nil && !slices.Contains(names, n.Snap) {
			return err
		}
		return listErr
	})
}

// CreateSnapshot takes the snapshot n.Snap. A name that is taken is [ErrExists]; of
// two who take it at once while the image is open elsewhere librbd takes the second
// for the first repeated, and tells both that they did: it takes a lease.
// The image may be open and written to meanwhile: what was acknowledged before is
// in the snapshot. If who owns the image's lock does not respond it is [ErrTimeout],
// and the lock stays.
//
// Similar to: rbd snap create.
func (c *Cluster) CreateSnapshot(ctx context.Context, n Name) error {
	if err := c.notByHand(ctx, "create snapshot", n); err != nil {
		return err
	}
	if err := c.ownerResponds(ctx, "create snapshot", n); err != nil {
		return err
	}
	return c.edit(ctx, n, func(img *rbd.Image) error {
		if err := noSnapshot(img, n); err != nil {
			return err
		}
		snap, err := img.CreateSnapshot(n.Snap)
		if err != nil {
			return wrap("create snapshot", n.String(), err)
		}
		return c.checkWhole(ctx, n, img, snap)
	})
}

// NoSnapshot is [ErrExists] if an image has the snapshot n.Snap.
func (c *Cluster) NoSnapshot(ctx context.Context, n Name) error {
	return c.view(ctx, Name{Pool: n.Pool, Image: n.Image}, func(img *rbd.Image) error { return noSnapshot(img, n) })
}

func noSnapshot(img *rbd.Image, n Name) error {
	names, err := snapshots(img, n)
	if err == nil && slices.Contains(names, n.Snap) {
		err = &Error{Op: "create snapshot", Object: n.String(), Kind: ErrExists}
	}
	return err
}

// checkWhole takes back a snapshot that cannot be opened. In a pool that is full
// librbd makes one without the object map that opening it asks for, and calls that
// done. The map is looked for and the snapshot not opened: see open.go.
func (c *Cluster) checkWhole(ctx context.Context, n Name, img *rbd.Image, snap *rbd.Snapshot) error {
	whole, err := hasObjectMap(ctx, c, n, img)
	if err != nil || whole {
		return err
	}
	if err := snap.Remove(); err != nil {
		return wrap("remove", n.String(), err)
	}
	return &Error{Op: "create snapshot", Object: n.String(), Kind: ErrNoSpace, Reason: "no space left for its object map"}
}

// hasObjectMap says whether a snapshot has its object map, or needs none. Source:
// librbd, ObjectMap::object_map_name.
func hasObjectMap(ctx context.Context, c *Cluster, n Name, img *rbd.Image) (bool, error) {
	features, err := img.GetFeatures()
	if err != nil || features&rbd.FeatureObjectMap == 0 {
		return true, wrap("read features of", n.String(), err)
	}
	id, err := img.GetId()
	if err != nil {
		return false, wrap("read id of", n.String(), err)
	}
	at, err := img.GetSnapID(n.Snap)
	if err != nil {
		return false, wrap("read id of", n.String(), err)
	}
	err = c.pool(ctx, n.Pool, func(io *rados.IOContext) error {
		_, err := io.Stat(fmt.Sprintf("rbd_object_map.%s.%016x", id, at))
		return wrap("find object map of", n.String(), err)
	})
	return err == nil, ignore(err, ErrNotFound)
}

// ProtectSnapshot makes the snapshot n.Snap one that can be cloned from and not
// be removed. One that is protected is fine.
//
// Similar to: rbd snap protect.
func (c *Cluster) ProtectSnapshot(ctx context.Context, n Name) error {
	return c.edit(ctx, n, func(img *rbd.Image) error {
		snap := img.GetSnapshot(n.Snap)
		protected, err := snap.IsProtected()
		if err == nil && !protected {
			err = snap.Protect()
		}
		return wrap("protect", n.String(), err)
	})
}

// RemoveSnapshot unprotects and removes the snapshot n.Snap. One that is not
// there is [ErrNotFound]; one with clones is [ErrHasClones], names them, and is
// left as it is.
//
// Similar to: rbd snap unprotect, rbd snap rm.
func (c *Cluster) RemoveSnapshot(ctx context.Context, n Name) error {
	if err := c.Droppable(ctx, n); err != nil {
		return err
	}
	whole := n
	whole.Snap = ""
	return c.edit(ctx, whole, func(img *rbd.Image) error { return dropSnapshot(img, whole, n.Snap) })
}

// Droppable says what keeps a snapshot: one that is not there is [ErrNotFound], one
// with clones [ErrHasClones], naming them.
func (c *Cluster) Droppable(ctx context.Context, n Name) error {
	children, err := c.clonesOf(ctx, n)
	if err == nil && len(children) > 0 {
		err = &Error{Op: "remove", Object: n.String(), Kind: ErrHasClones, Holders: children}
	}
	return err
}

// Rollback gives an image the content and the size that it had when the snapshot
// n.Snap was taken. It blocks for as long as that takes, a time in proportion to
// the image's size; progress, which may be nil, is told objects. An image that
// somebody has open is [ErrInUse] and names them. When ctx ends before it is over
// the image is neither the one nor the other: run it again.
//
// Similar to: rbd snap rollback.
func (c *Cluster) Rollback(ctx context.Context, n Name, progress func(done, total int64)) error {
	whole := n
	whole.Snap = ""
	by, err := c.Watchers(ctx, whole)
	if err != nil {
		return err
	}
	if len(by) > 0 {
		return inUse("roll back", whole, by)
	}
	if _, err := c.clonesOf(ctx, n); err != nil { // is it there?
		return err
	}
	return c.pool(ctx, n.Pool, func(io *rados.IOContext) error {
		err := withProgress(ctx, progress, func(p *watched) error { return p.rollback(io, n) })
		return wrap("roll back", fmt.Sprintf("%s to @%s", whole, n.Snap), err)
	})
}
