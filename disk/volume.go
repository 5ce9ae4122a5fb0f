// Volumes: images in "volumes" that are attached to machines, laid out as
// Cinder's RBD driver does.

package disk

import (
	"context"
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
	Used     int64  `json:"used"`   // bytes of its own, those of the parent not counted
	Attached *Owner `json:"attached"`
	// Deleted is a volume that Cinder deleted and keeps, as volume-ID.deleted, for
	// its clones.
	Deleted  bool      `json:"deleted"`
	Watchers []Watcher `json:"watchers"` // who has it open for writing
}

// Name is the volume's image.
func (v Volume) Name() Name { return Name{Pool: v.Pool, Image: v.Image} }

// CreateVolume makes an empty volume of size bytes, a whole number of GiB.
//
// Similar to: rbd create.
func (c *Cluster) CreateVolume(ctx context.Context, n Name, size int64) (Volume, error) {
	if err := wholeGiB("create", n, size); err != nil {
		return Volume{}, err
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

// CloneVolume makes the volume dst a copy-on-write clone of the snapshot src, with
// objects at least as large as its parent's, as Cinder does, and size bytes large; 0 is
// the size of src. Errors are as of [Cluster.Clone].
//
// Similar to: rbd clone and rbd resize. Source: cinder, _get_stripe_unit.
func (c *Cluster) CloneVolume(ctx context.Context, src Name, size int64, dst Name) error {
	return c.fromSnapshot(ctx, src, func(from *rados.IOContext, img *rbd.Image) error {
		info, err := img.Stat()
		if err != nil {
			return wrap("inspect", src.String(), err)
		}
		if err := checkRaw(img, src); err != nil {
			return err
		}
		return c.cloneAll(ctx, from, img, src, size, max(volumeOrder, uint8(info.Order)), []Name{dst})
	})
}

// SnapshotSize is the size in bytes of what a clone of the snapshot would be.
func (c *Cluster) SnapshotSize(ctx context.Context, src Name) (size int64, err error) {
	err = c.fromSnapshot(ctx, src, func(_ *rados.IOContext, img *rbd.Image) error {
		has, err := img.GetSize()
		size = int64(has)
		return wrap("read size of", src.String(), err)
	})
	return size, err
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
func (c *Cluster) Volume(ctx context.Context, n Name) (v Volume, err error) {
	err = c.pool(ctx, n.Pool, func(io *rados.IOContext) error {
		d, err := c.described(ctx, io, n, newParents(c))
		if err == nil {
			v, err = newVolume(io, d)
		}
		return err
	})
	return v, err
}

// Volumes describes every volume of a pool, by name.
//
// Similar to: rbd ls -l, rbd du and rbd status.
func (c *Cluster) Volumes(ctx context.Context, pool string) ([]Volume, error) {
	return list(ctx, c, pool, func(name string) bool { return strings.HasPrefix(name, volumePrefix) }, newVolume)
}

// newVolume adds to an image what makes it a volume: the record of who has it.
func newVolume(io *rados.IOContext, d Disk) (Volume, error) {
	v := Volume{ID: VolumeID(d.Image), Pool: d.Pool, Image: d.Image, Size: d.Size, Parent: d.Parent,
		Used: d.Used, Watchers: d.Watchers, Deleted: strings.HasSuffix(d.Image, deletedSuffix)}
	var owner Owner
	_, err := readOwner(io, d.Name(), &owner)
	if err == nil {
		v.Attached = &owner
	}
	return v, ignore(err, ErrNotFound)
}

// VolumeDetail is all that is known of a volume.
type VolumeDetail struct {
	Volume
	Depth       int        `json:"depth"`       // how many volumes deep its chain of clones is, as Cinder counts
	ObjectSize  int64      `json:"object_size"` // bytes
	Features    []string   `json:"features"`
	ParentTrash bool       `json:"parent_in_trash"`
	Snapshots   []Snapshot `json:"snapshots"`
}

// VolumeDetail describes one volume with all that is known of it.
//
// Similar to: rbd info, rbd du, rbd snap ls, rbd children and rbd status.
func (c *Cluster) VolumeDetail(ctx context.Context, n Name) (VolumeDetail, error) {
	v, err := c.Volume(ctx, n)
	d := VolumeDetail{Volume: v}
	if err != nil {
		return d, err
	}
	err = c.view(ctx, n, func(img *rbd.Image) error {
		info, err := img.Stat()
		if err != nil {
			return wrap("inspect", n.String(), err)
		}
		d.ObjectSize = int64(info.Obj_size)
		features, err := img.GetFeatures()
		if err != nil {
			return wrap("read features of", n.String(), err)
		}
		set := rbd.FeatureSet(features)
		d.Features = set.Names()
		slices.Sort(d.Features)
		if from, err := img.GetParent(); err == nil {
			d.ParentTrash = from.Image.Trash
		}
		return nil
	})
	if err == nil {
		d.Snapshots, err = c.Snapshots(ctx, n)
	}
	if err == nil {
		d.Depth, err = c.CloneDepth(ctx, n)
	}
	return d, err
}

// CloneDepth is how many volumes a volume is above the one that its chain of clones
// began with: 0 for one that was not made from a volume. What hangs on an image or
// on a user's snapshot begins a chain.
//
// Source: cinder, _get_clone_depth.
func (c *Cluster) CloneDepth(ctx context.Context, n Name) (int, error) {
	for depth := 0; ; depth++ {
		from, err := c.Parent(ctx, n)
		if depth > 0 { // an ancestor in the trash
			err = ignore(err, ErrNotFound)
		}
		if err != nil || from.Image == "" || from.Snap != CloneSnapshot(n.Image) {
			return depth, err
		}
		n = Name{Pool: from.Pool, Image: from.Image}
	}
}
