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

// PartName is what an image is called until it is whole. What is made there gets its
// snapshot, has that protected, and is renamed, in this order.
func PartName(n Name) Name { return Name{Pool: n.Pool, Image: n.Image + importSuffix} }

// BeginImport makes an empty image of size bytes, to become n. An ID that exists is
// [ErrExists]. What an import that was killed has left is removed first; one that
// somebody has open is [ErrInUse], after the 35 s in which the watch of a dead one
// would have gone. Follow it by [Cluster.Import].
//
// Similar to: rbd create.
func (c *Cluster) BeginImport(ctx context.Context, n Name, size int64) error {
	return c.beginImage(ctx, n, func(part Name) error {
		return c.pool(ctx, part.Pool, func(io *rados.IOContext) error { return createImage(io, part, size, imageOrder) })
	})
}

// BeginClone makes a clone of the snapshot src, to become n, with the objects of an
// image whatever those of src are. Else it is as [Cluster.BeginImport]. Follow it by
// [Cluster.Flatten].
//
// Similar to: rbd clone.
func (c *Cluster) BeginClone(ctx context.Context, src, n Name) error {
	return c.beginImage(ctx, n, func(part Name) error {
		err := c.pool(ctx, part.Pool, func(to *rados.IOContext) error {
			return c.view(ctx, src, func(img *rbd.Image) error { return cloneFrom(img, src, to, part, cloneForm{order: imageOrder}) })
		})
		var e *Error
		if errors.As(err, &e) && is(e, ErrPermission) {
			e.Reason = fmt.Sprintf("client.%s may not write there; it needs: osd 'profile rbd pool=%s'", c.user, part.Pool)
		}
		return err
	})
}

// beginImage has an image made under the name for what is not whole.
func (c *Cluster) beginImage(ctx context.Context, n Name, create func(part Name) error) error {
	n.Snap = ""
	part := PartName(n)
	if err := c.Absent(ctx, n); err != nil {
		return err
	}
	err := ignore(waitUnused(ctx, func() error { return c.RemoveImage(ctx, part) }), ErrNotFound)
	if err != nil {
		return err
	}
	return create(part)
}

// Import copies a source into the image that is to become n and verifies what Ceph
// holds. It blocks for as long as that takes; progress, which may be nil, is told
// bytes of the virtual size.
//
// Similar to: rbd import.
func (c *Cluster) Import(ctx context.Context, n Name, src *Source, progress func(done, total int64)) error {
	return c.pool(ctx, n.Pool, func(io *rados.IOContext) error {
		part := PartName(n)
		if err := present(io, part); err != nil {
			return err
		}
		return wrap("import", n.String(), copySource(ctx, io, part.Image, src, progress))
	})
}
