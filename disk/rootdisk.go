// Root disks: the images in "vms" that machines boot from, and what else there
// carries the machine's UUID.

package disk

import (
	"context"
	"strings"

	"github.com/ceph/go-ceph/rbd"
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
func (c *Cluster) Disk(ctx context.Context, n Name) (Disk, error) {
	d := Disk{Pool: n.Pool, Image: n.Image}
	err := c.view(ctx, n, func(img *rbd.Image) error {
		size, err := img.GetSize()
		if err != nil {
			return wrap("read size of", n.String(), err)
		}
		d.Size = int64(size)
		from, err := parent(img, n)
		if err != nil {
			return err
		}
		if from.Image != "" {
			d.Parent = from.String()
		}
		if d.Used, err = used(img, n); err != nil {
			return err
		}
		d.Watchers, err = watchers(img, n)
		return err
	})
	return d, err
}

// Disks describes every image of a pool, by name.
func (c *Cluster) Disks(ctx context.Context, pool string) ([]Disk, error) {
	names, err := c.imageNames(ctx, pool, func(string) bool { return true })
	if err != nil {
		return nil, err
	}
	return each(ctx, names, func(name string) (Disk, error) {
		return c.Disk(ctx, Name{Pool: pool, Image: name})
	})
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
