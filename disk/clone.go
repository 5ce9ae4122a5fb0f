// Cloning an image's protected snapshot, and growing what was cloned.

package disk

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/ceph/go-ceph/rados"
	"github.com/ceph/go-ceph/rbd"
)

// Clone makes each dst a copy-on-write clone of the snapshot src, in milliseconds and
// without copying data, and size bytes large; 0 is the size of src. It makes all of
// them or, if it fails, none. They are in one pool. An image larger than size is
// refused with [ErrInvalid] before anything is made: a disk is never shrunk. A snapshot
// that does not exist is [ErrNotFound]; one that is not protected is [ErrNotProtected]
// on a cluster that needs it to be; an image that holds a qcow2 or another such file is
// [ErrNotRaw].
//
// Similar to: rbd clone and rbd resize.
func (c *Cluster) Clone(ctx context.Context, src Name, size int64, dst ...Name) error {
	return c.clone(ctx, src, size, checkRaw, dst)
}

// CloneAsIs is [Cluster.Clone] without a look at what the image holds.
func (c *Cluster) CloneAsIs(ctx context.Context, src Name, size int64, dst ...Name) error {
	return c.clone(ctx, src, size, func(*rbd.Image, Name) error { return nil }, dst)
}

func (c *Cluster) clone(ctx context.Context, src Name, size int64, check func(*rbd.Image, Name) error, dst []Name) error {
	return c.fromSnapshot(ctx, src, func(from *rados.IOContext, img *rbd.Image) error {
		if err := checkFits(img, src, size); err != nil {
			return err
		}
		if err := check(img, src); err != nil {
			return err
		}
		return c.cloneAll(ctx, from, img, src, size, 0, dst)
	})
}

// fromSnapshot runs f with a snapshot to clone from.
func (c *Cluster) fromSnapshot(ctx context.Context, src Name, f func(from *rados.IOContext, img *rbd.Image) error) error {
	return c.pool(ctx, src.Pool, func(from *rados.IOContext) error {
		img, err := openSnapshot(from, src)
		if err != nil {
			return err
		}
		defer c.closeLater(img)
		return f(from, img)
	})
}

// cloneAll makes clones with objects of 2^order bytes; an order of 0 is the parent's.
func (c *Cluster) cloneAll(ctx context.Context, from *rados.IOContext, img *rbd.Image, src Name, size int64, order uint8, dst []Name) error {
	err := c.pool(ctx, dst[0].Pool, func(to *rados.IOContext) error {
		o, err := c.plain(img, src, from, to)
		if err != nil {
			return err
		}
		if o == nil || order != 0 && order != o.order { // such ones librbd stripes
			return c.cloneOrdinary(ctx, img, src, to, size, cloneForm{order: order}, dst)
		}
		size := max(uint64(size), o.size)
		if objects(size, o.order) > maxObjects {
			return invalid(dst[0].String(), "%s is more than an image of objects of %s can have", FormatSize(int64(size)), FormatSize(1<<o.order))
		}
		return o.clone(ctx, c, from, to, size, dst)
	})
	return c.explainCaps(src.Pool+", profile rbd pool="+dst[0].Pool, removedMeanwhile(from, src, err))
}

// cloneForm is what clones are like; 0 is what librbd would choose.
type cloneForm struct {
	order  uint8 // objects are of 2^order bytes
	format uint64
}

// cloneOrdinary has librbd make clones, and grow them.
func (c *Cluster) cloneOrdinary(ctx context.Context, img *rbd.Image, src Name, to *rados.IOContext, size int64, form cloneForm, dst []Name) error {
	var mu sync.Mutex
	var made []Name
	err := parallel(ctx, dst, func(n Name) error {
		if err := cloneFrom(img, src, to, n, form); err != nil {
			return err
		}
		mu.Lock()
		made = append(made, n)
		mu.Unlock()
		if size == 0 {
			return nil
		}
		_, err := c.Grow(ctx, n, size)
		return err
	})
	if err != nil {
		_ = parallel(context.WithoutCancel(ctx), made, func(n Name) error {
			if left := ignore(removeIn(to, n), ErrNotFound); left != nil {
				mu.Lock()
				defer mu.Unlock()
				err = fmt.Errorf("%w (and %s is left: %w)", err, n, left)
			}
			return nil
		})
	}
	return err
}

// removedMeanwhile says of a clone that was refused whether the snapshot is just being
// removed: the image is open as it was.
func removedMeanwhile(from *rados.IOContext, src Name, err error) error {
	if !errors.Is(err, ErrInvalid) {
		return err
	}
	img, openErr := openSnapshot(from, src)
	if is(openErr, ErrNotFound) {
		return openErr
	}
	if openErr != nil {
		return err
	}
	defer closeImage(img, time.Now())
	if protected, protErr := img.GetSnapshot(src.Snap).IsProtected(); protErr == nil && !protected {
		return &Error{Op: "clone", Object: src.String(), Kind: ErrNotProtected, Err: err, Reason: "somebody is removing it"}
	}
	return err
}

// Cloneable is [ErrNotFound] if there is no such snapshot, and says whether it is
// the image that is missing.
func (c *Cluster) Cloneable(ctx context.Context, src Name) error {
	return c.fromSnapshot(ctx, src, func(*rados.IOContext, *rbd.Image) error { return nil })
}

// openSnapshot opens a snapshot read-only and says whether it is the image or
// its snapshot that is missing.
func openSnapshot(io *rados.IOContext, src Name) (*rbd.Image, error) {
	img, err := openImage(io, src, rbd.OpenImageReadOnly)
	if err == nil {
		return img, nil
	}
	e := translate("open", src.String(), err)
	if !is(e, ErrNotFound) {
		return nil, e
	}
	e.Reason = fmt.Sprintf("no image %s/%s", src.Pool, src.Image)
	if present(io, src) == nil {
		e.Reason = fmt.Sprintf("image %s/%s has no snapshot %q to clone from", src.Pool, src.Image, src.Snap)
	}
	return nil, e
}

func checkFits(img *rbd.Image, src Name, size int64) error {
	if size == 0 {
		return nil
	}
	has, err := img.GetSize()
	if err != nil {
		return wrap("read size of", src.String(), err)
	}
	if int64(has) > size {
		return &Error{Op: "clone", Object: src.String(), Kind: ErrInvalid,
			Reason: fmt.Sprintf("its size is %s, a disk of %s would be smaller", FormatSize(int64(has)), FormatSize(size))}
	}
	return nil
}

func cloneFrom(img *rbd.Image, src Name, to *rados.IOContext, dst Name, form cloneForm) error {
	opts := rbd.NewRbdImageOptions()
	defer opts.Destroy()
	for option, value := range map[rbd.ImageOption]uint64{rbd.ImageOptionOrder: uint64(form.order), rbd.ImageOptionCloneFormat: form.format} {
		if value == 0 {
			continue
		}
		if err := opts.SetUint64(option, value); err != nil {
			return wrap("clone", src.String()+" to "+dst.String(), err)
		}
	}
	err := rbd.CloneFromImage(img, src.Snap, to, dst.Image, opts)
	if err == nil {
		return nil
	}
	e := translate("clone", src.String()+" to "+dst.String(), err)
	switch {
	case is(e, ErrExists):
		e.Op, e.Object = "create", dst.String()
	case is(e, ErrInvalid): // what librbd says of an unprotected parent, among others
		if protected, err := img.GetSnapshot(src.Snap).IsProtected(); err == nil && !protected {
			e.Kind = ErrNotProtected
			e.Reason = "the snapshot is not protected"
		}
	}
	return e
}

// Grow makes an image size bytes large and returns what it had. One that is as
// large already is left alone; one that is larger is refused with [ErrInvalid].
//
// Similar to: rbd resize.
func (c *Cluster) Grow(ctx context.Context, n Name, size int64) (had int64, err error) {
	err = c.edit(ctx, n, func(img *rbd.Image) error {
		has, err := img.GetSize()
		had = int64(has)
		switch {
		case err != nil:
			return wrap("read size of", n.String(), err)
		case had == size:
			return nil
		case had > size:
			return &Error{Op: "resize", Object: n.String(), Kind: ErrInvalid,
				Reason: fmt.Sprintf("it is %s, shrinking it to %s would cut data off", FormatSize(had), FormatSize(size))}
		}
		return wrap("resize", n.String(), img.Resize(uint64(size)))
	})
	return had, err
}

// Size is an image's size in bytes.
func (c *Cluster) Size(ctx context.Context, n Name) (int64, error) {
	if n.Snap == "" { // without opening it
		var h header
		err := c.pool(ctx, n.Pool, func(io *rados.IOContext) (err error) {
			if _, h, err = headerOf(io, n); err != nil {
				err = translate("open", n.String(), err)
			}
			return err
		})
		return h.size, err
	}
	var size uint64
	err := c.view(ctx, n, func(img *rbd.Image) (err error) {
		size, err = img.GetSize()
		return wrap("read size of", n.String(), err)
	})
	return int64(size), err
}

// Parent is the snapshot that an image was cloned from, or the zero Name.
func (c *Cluster) Parent(ctx context.Context, n Name) (Name, error) {
	var from Name
	err := c.view(ctx, n, func(img *rbd.Image) (err error) {
		from, err = parent(img, n)
		return err
	})
	return from, err
}

// Absent is [ErrExists] if there is an image of one of the names, which are in one pool.
// It asks for the images' ids and does not open them: librbd 16.2 can crash where many
// opens fail at once.
func (c *Cluster) Absent(ctx context.Context, names ...Name) error {
	return c.pool(ctx, names[0].Pool, func(io *rados.IOContext) error {
		return parallel(ctx, names, func(n Name) error {
			_, err := imageID(io, n)
			if err == nil {
				err = &Error{Op: "create", Object: n.String(), Kind: ErrExists}
			}
			return ignore(err, ErrNotFound)
		})
	})
}
