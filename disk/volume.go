// Volumes: images in "volumes" that are attached to machines, laid out as
// Cinder's RBD driver does.

package disk

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/ceph/go-ceph/rados"
	"github.com/ceph/go-ceph/rbd"
)

// GiB is the unit of a volume's size. Cinder knows no other.
const GiB = 1 << 30

// volumeOrder makes 4 MiB objects. Source: cinder, rbd_store_chunk_size.
const volumeOrder = 22

// Volume is a disk that lives apart from machines.
type Volume struct {
	ID       string `json:"id"`
	Pool     string `json:"pool"`
	Image    string `json:"image"`
	Size     int64  `json:"size"`   // bytes
	Parent   string `json:"parent"` // POOL/IMAGE@SNAP that it was cloned from, or ""
	Attached *Owner `json:"attached"`
}

// Name is the volume's image.
func (v Volume) Name() Name { return Name{Pool: v.Pool, Image: v.Image} }

// CreateVolume makes an empty volume of size bytes, a whole number of GiB.
//
// Similar to: rbd create.
func (c *Cluster) CreateVolume(ctx context.Context, n Name, size int64) (Volume, error) {
	if size <= 0 || size%GiB != 0 {
		return Volume{}, &Error{Op: "create", Object: n.String(), Kind: ErrInvalid,
			Reason: "a volume's size is a whole number of GiB, not " + FormatSize(size)}
	}
	err := c.pool(ctx, n.Pool, func(io *rados.IOContext) error {
		return createImage(io, n, size, volumeOrder)
	})
	if err != nil {
		return Volume{}, err
	}
	// It is made; a cancellation now must not hide that.
	return c.Volume(context.WithoutCancel(ctx), n)
}

// CheckVolume refuses what is there and not a volume: an image, which others
// clone from and nobody may write to.
func (c *Cluster) CheckVolume(ctx context.Context, n Name) error {
	return c.view(ctx, n, func(img *rbd.Image) error {
		names, err := snapshots(img, n)
		if err == nil && slices.Contains(names, ImageSnapshot) {
			err = invalid(n.String(), "is an image with the snapshot %q that disks are cloned from, not a volume", ImageSnapshot)
		}
		return err
	})
}

// Volume describes one volume.
func (c *Cluster) Volume(ctx context.Context, n Name) (Volume, error) {
	v := Volume{ID: VolumeID(n.Image), Pool: n.Pool, Image: n.Image}
	err := c.view(ctx, n, func(img *rbd.Image) error {
		size, err := img.GetSize()
		if err != nil {
			return wrap("read size of", n.String(), err)
		}
		v.Size = int64(size)
		from, err := parent(img, n)
		if err == nil && from.Image != "" {
			v.Parent = from.String()
		}
		return err
	})
	if err != nil {
		return v, err
	}
	owner, err := c.Owner(ctx, n)
	if err == nil {
		v.Attached = &owner
	}
	return v, ignore(err, ErrNotFound)
}

// Volumes describes every volume of a pool, by name.
func (c *Cluster) Volumes(ctx context.Context, pool string) ([]Volume, error) {
	names, err := c.imageNames(ctx, pool, func(s string) bool { return strings.HasPrefix(s, volumePrefix) })
	if err != nil {
		return nil, err
	}
	return each(ctx, names, func(name string) (Volume, error) {
		return c.Volume(ctx, Name{Pool: pool, Image: name})
	})
}

// RemoveVolume removes a volume. It refuses with [ErrInUse] what is open or
// claimed by a machine, with [ErrHasClones] or [ErrHasSnapshots] what others
// depend on, and names them.
//
// Similar to: rbd rm.
func (c *Cluster) RemoveVolume(ctx context.Context, n Name) error {
	owner, err := c.Owner(ctx, n)
	switch {
	case err == nil:
		return &Error{Op: "remove", Object: n.String(), Kind: ErrInUse, Holders: []string{owner.String()}}
	case !errors.Is(err, ErrNotFound):
		return err
	}
	if err := c.removable(ctx, n); err != nil {
		return err
	}
	return c.remove(ctx, n)
}
