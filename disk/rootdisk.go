// Root disks: the images in "vms" that machines boot from, and what else there
// carries the machine's UUID.

package disk

import (
	"context"
	"strings"

	"github.com/ceph/go-ceph/rados"
)

// Disk is a root disk, or another image that belongs to a machine.
type Disk struct {
	Pool     string    `json:"pool"`
	Image    string    `json:"image"`
	Size     int64     `json:"size"`   // bytes
	Parent   string    `json:"parent"` // POOL/IMAGE@SNAP that it was cloned from, or ""
	Used     int64     `json:"used"`   // bytes of its own, those of the parent not counted
	Watchers []Watcher `json:"watchers"`
}

// Name is the disk's image.
func (d Disk) Name() Name { return Name{Pool: d.Pool, Image: d.Image} }

// Disk describes one image with all that is known of it.
//
// Similar to: rbd info, rbd du and rbd status.
func (c *Cluster) Disk(ctx context.Context, n Name) (d Disk, err error) {
	err = c.pool(ctx, n.Pool, func(io *rados.IOContext) error {
		d, err = c.described(ctx, io, n, newParents(c))
		return err
	})
	return d, err
}

// Described describes images of a pool, in their order. One that is not there is left
// out.
func (c *Cluster) Described(ctx context.Context, pool string, images ...string) (all []Disk, err error) {
	err = c.pool(ctx, pool, func(io *rados.IOContext) error {
		known := newParents(c)
		all, err = eachOf(ctx, listWorkers, images, func(image string) (Disk, error) {
			return c.described(ctx, io, Name{Pool: pool, Image: image}, known)
		})
		return err
	})
	return all, err
}

// Disks describes every image of a pool, by name.
//
// Similar to: rbd ls -l, rbd du and rbd status.
func (c *Cluster) Disks(ctx context.Context, pool string) ([]Disk, error) {
	return list(ctx, c, pool, func(string) bool { return true }, func(_ *rados.IOContext, d Disk) (Disk, error) { return d, nil })
}

// MachineImages lists the images of a machine: those in pool whose name begins
// with its UUID and an underscore, as Nova names them (UUID_disk,
// UUID_disk.config …).
func (c *Cluster) MachineImages(ctx context.Context, pool, uuid string) ([]Name, error) {
	names, err := c.imageNames(ctx, pool, func(s string) bool { return strings.HasPrefix(s, uuid+"_") })
	var all []Name
	for _, name := range names {
		all = append(all, Name{Pool: pool, Image: name})
	}
	return all, err
}

// RemoveDisk removes an image without snapshots. One that is open is waited for,
// because the watch of a machine that was killed outlives it by 30 s; after 35 s
// it is [ErrInUse], naming the watchers. One that is not there is fine: removals
// are run again until they are done.
//
// Similar to: rbd rm.
func (c *Cluster) RemoveDisk(ctx context.Context, n Name) error {
	err := waitUnused(ctx, func() error {
		if err := ignore(c.removable(ctx, n), ErrNotFound); err != nil {
			return err
		}
		return c.remove(ctx, n)
	})
	return ignore(err, ErrNotFound)
}
