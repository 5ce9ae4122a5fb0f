// Importing: an image is made under another name and gets its own when it is
// whole, so that nobody ever sees a half one.

package disk

import (
	"context"
	"errors"
	"fmt"

	"github.com/ceph/go-ceph/rados"
	"github.com/ceph/go-ceph/rbd"
)

// Import is an image in the making. Follow [Cluster.BeginImport] by Copy, or
// [Cluster.BeginClone] by Flatten, then by Snapshot, Protect and Name, in this
// order, and by Close; or by Abandon, which removes it all. It is for one goroutine.
//
// It keeps the image open, which is how another import of the same ID sees that
// this one lives: a watch, which dies with the process.
type Import struct {
	c    *Cluster
	io   *rados.IOContext
	img  *rbd.Image
	name Name
	part Name // what it is called until it is whole
}

// PartName is what an image is called until it is whole.
func PartName(n Name) Name { return Name{Pool: n.Pool, Image: n.Image + importSuffix} }

// BeginImport makes an empty image of size bytes for n. An ID that exists is
// [ErrExists]. What an import that was killed has left is removed first; one that
// still runs is [ErrInUse], after the 35 s in which the watch of a dead one would
// have gone.
//
// Similar to: rbd create.
func (c *Cluster) BeginImport(ctx context.Context, n Name, size int64) (*Import, error) {
	return c.beginImage(ctx, n, func(part Name) error {
		return c.pool(ctx, part.Pool, func(io *rados.IOContext) error { return createImage(io, part, size, imageOrder) })
	})
}

// BeginClone makes a clone of the snapshot src for n, with the objects of an image
// whatever those of src are. Else it is as [Cluster.BeginImport].
//
// Similar to: rbd clone.
func (c *Cluster) BeginClone(ctx context.Context, src, n Name) (*Import, error) {
	return c.beginImage(ctx, n, func(part Name) error {
		err := c.pool(ctx, part.Pool, func(to *rados.IOContext) error {
			return c.view(ctx, src, func(img *rbd.Image) error { return cloneFrom(img, src, to, part, imageOrder) })
		})
		var e *Error
		if errors.As(err, &e) && is(e, ErrPermission) {
			e.Reason = fmt.Sprintf("client.%s may not write there; it needs: osd 'profile rbd pool=%s'", c.user, part.Pool)
		}
		return err
	})
}

// beginImage has an image made under the name for what is not whole.
func (c *Cluster) beginImage(ctx context.Context, n Name, create func(part Name) error) (*Import, error) {
	n.Snap = ""
	i := &Import{c: c, name: n, part: PartName(n)}
	if err := c.Absent(ctx, n); err != nil {
		return nil, err
	}
	err := ignore(waitUnused(ctx, func() error { return c.RemoveImage(ctx, i.part) }), ErrNotFound)
	if err != nil {
		return nil, err
	}
	if err := c.Absent(ctx, n); err != nil { // it may have been waited for
		return nil, err
	}
	if err := create(i.part); err != nil {
		return nil, err
	}
	if i.io, err = c.openPool(n.Pool); err != nil {
		return nil, err
	}
	if i.img, err = rbd.OpenImage(i.io, i.part.Image, rbd.NoSnapshot); err != nil {
		i.io.Destroy()
		return nil, wrap("open", i.part.String(), err)
	}
	return i, nil
}

// Copy copies a source into the image and verifies what Ceph holds. It blocks
// for as long as that takes; progress, which may be nil, is told bytes of the
// virtual size.
//
// Similar to: rbd import.
func (i *Import) Copy(ctx context.Context, src *Source, progress func(done, total int64)) error {
	return wrap("import", i.name.String(), copySource(ctx, i.io, i.part.Image, src, progress))
}

// Flatten copies into the image what it shares with the snapshot that it was
// cloned from, and parts them; see [Cluster.Flatten].
//
// Similar to: rbd flatten.
func (i *Import) Flatten(ctx context.Context, progress func(done, total int64)) error {
	return i.c.Flatten(ctx, i.part, progress)
}

// Snapshot takes the snapshot "snap".
//
// Similar to: rbd snap create.
func (i *Import) Snapshot(context.Context) error {
	_, err := i.img.CreateSnapshot(ImageSnapshot)
	return wrap("snapshot", i.name.String(), err)
}

// Protect protects the snapshot "snap".
//
// Similar to: rbd snap protect.
func (i *Import) Protect(context.Context) error {
	return wrap("protect", i.name.String(), i.img.GetSnapshot(ImageSnapshot).Protect())
}

// Name gives the image its name; it is [ErrExists] if somebody else took it
// meanwhile.
//
// Similar to: rbd rename.
func (i *Import) Name(context.Context) error {
	return wrap("name", i.name.String(), rbd.GetImage(i.io, i.part.Image).Rename(i.name.Image))
}

// Close lets go of the image. Calling it again does nothing.
func (i *Import) Close() error {
	if i.img == nil {
		return nil
	}
	err := i.img.Close()
	i.io.Destroy()
	i.img = nil
	return wrap("close", i.name.String(), err)
}

// Abandon closes and removes an image that was not named yet; one that is not
// there is fine.
func (i *Import) Abandon(ctx context.Context) error {
	if err := i.Close(); err != nil {
		return err
	}
	return ignore(i.c.RemoveImage(ctx, i.part), ErrNotFound)
}
