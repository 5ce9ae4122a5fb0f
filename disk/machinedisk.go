// The disks that a machine owns besides its root disk, by the names that Nova
// gives them.

package disk

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/ceph/go-ceph/rados"
	"github.com/ceph/go-ceph/rbd"
	"github.com/google/uuid"
)

// What an image is to a machine.
const (
	RoleRoot      = "root"
	RoleSwap      = "swap"
	RoleEphemeral = "ephemeral"
	RoleConfig    = "config"
	RoleRescue    = "rescue"
	RoleVolume    = "volume"
	RoleOther     = "other" // it has the machine's UUID in its name, and no known ending
)

const (
	// ResizeSnapshot is the way back of a resize. Nova removes it with the machine,
	// and no other snapshot. Source: nova, virt/libvirt/utils.py.
	ResizeSnapshot = "nova-resize"

	// capturePrefix begins the snapshot that an image is made from, which is there
	// only while it is made.
	capturePrefix = "vmdisk-image."
)

// CaptureSnapshot is a name for the snapshot that image id is made from, another
// one for each try, so that undoing one does not touch another's.
func CaptureSnapshot(id string) string {
	return capturePrefix + uuid.NewString()[:8] + "." + id
}

// capturedFor says whether a snapshot was taken to make image id from it.
func capturedFor(snap, id string) bool {
	rest, ok := strings.CutPrefix(snap, capturePrefix)
	_, of, _ := strings.Cut(rest, ".")
	return ok && of == id
}

// passing is a snapshot that a workflow takes on a machine's disk and removes
// again. It does not keep a machine from being removed.
func passing(snap string) bool {
	return snap == ResizeSnapshot || strings.HasPrefix(snap, capturePrefix)
}

// SwapDiskName is the image name of a machine's swap disk.
func SwapDiskName(uuid string) string { return uuid + rootSuffix + ".swap" }

// EphemeralDiskName is the image name of a machine's i-th further disk, from 0.
func EphemeralDiskName(uuid string, i int) string {
	return fmt.Sprintf("%s%s.eph%d", uuid, rootSuffix, i)
}

// ConfigDiskName is the image name of a machine's config drive.
func ConfigDiskName(uuid string) string { return uuid + rootSuffix + ".config" }

// RescueDiskName is the image name of the disk that a machine in rescue boots from.
func RescueDiskName(uuid string) string { return uuid + rootSuffix + ".rescue" }

// Owned says whether an image is the machine's own, and goes with it.
func Owned(uuid, image string) bool { return strings.HasPrefix(image, uuid+"_") }

var ephemeralForm = regexp.MustCompile(`^_disk\.(eph[0-9]+|local)$`)

// Role is what an image is to the machine with a UUID.
func Role(uuid, image string) string {
	rest, own := strings.CutPrefix(image, uuid)
	switch {
	case !own:
		return RoleVolume
	case rest == rootSuffix:
		return RoleRoot
	case rest == rootSuffix+".swap":
		return RoleSwap
	case rest == rootSuffix+".config":
		return RoleConfig
	case ephemeralForm.MatchString(rest):
		return RoleEphemeral
	case strings.HasSuffix(rest, ".rescue"):
		return RoleRescue
	}
	return RoleOther
}

// CreateDisk makes an empty image of size bytes, in 4 MiB objects as `rbd import`,
// by which Nova makes such disks, has them. A name that is taken is [ErrExists].
//
// Similar to: rbd create.
func (c *Cluster) CreateDisk(ctx context.Context, n Name, size int64) error {
	return c.pool(ctx, n.Pool, func(io *rados.IOContext) error {
		return createImage(io, n, size, volumeOrder)
	})
}

// snapshotsLike lists the names of an image's snapshots that f says yes to.
func (c *Cluster) snapshotsLike(ctx context.Context, n Name, f func(string) bool) ([]string, error) {
	n.Snap = ""
	var names []string
	if cut, err := c.cutShort(ctx, n); err != nil || cut {
		return nil, err
	}
	err := c.view(ctx, n, func(img *rbd.Image) (err error) {
		names, err = snapshots(img, n)
		return err
	})
	return slices.DeleteFunc(names, func(s string) bool { return !f(s) }), err
}

// DropCaptures removes the snapshots of a disk that image id was made from, those
// of tries that were killed included. None is fine.
func (c *Cluster) DropCaptures(ctx context.Context, n Name, id string) error {
	names, err := c.snapshotsLike(ctx, n, func(s string) bool { return capturedFor(s, id) })
	if err != nil {
		return err
	}
	for _, n.Snap = range names {
		if err := ignore(c.RemoveSnapshot(ctx, n), ErrNotFound); err != nil {
			return err
		}
	}
	return nil
}

// MachineDiskRemovable says who is in the way of removing a machine's disk, as
// [Cluster.Removable] does. The way back of a resize, and what is left of making an
// image, are not.
func (c *Cluster) MachineDiskRemovable(ctx context.Context, n Name) error {
	own, err := c.snapshotsLike(ctx, n, passing)
	if err != nil {
		return ignore(err, ErrNotFound)
	}
	return ignore(ignore(c.removable(ctx, n, own...), ErrInUse), ErrNotFound)
}

// RemoveMachineDisk removes a machine's disk as [Cluster.RemoveDisk] does, and the
// snapshots with it that [Cluster.MachineDiskRemovable] does not mind.
//
// Similar to: rbd snap rm, rbd rm.
func (c *Cluster) RemoveMachineDisk(ctx context.Context, n Name) error {
	own, err := c.snapshotsLike(ctx, n, passing)
	if err == nil && len(own) > 0 {
		err = waitUnused(ctx, func() error { return c.removable(ctx, n, own...) })
	}
	for _, n.Snap = range own {
		if err == nil {
			err = c.RemoveSnapshot(ctx, n)
		}
	}
	if ignore(err, ErrNotFound) != nil {
		return err
	}
	n.Snap = ""
	return c.RemoveDisk(ctx, n)
}

// WaitUnused waits until nobody has an image open: the watch of a machine that was
// killed outlives it by 30 s. After 35 s it is [ErrInUse], naming the watchers.
func (c *Cluster) WaitUnused(ctx context.Context, n Name) error {
	n.Snap = ""
	return waitUnused(ctx, func() error {
		by, err := c.Watchers(ctx, n)
		if err == nil && len(by) > 0 {
			err = inUse("wait for", n, by)
		}
		return err
	})
}

// Rename gives an image of a pool another name, atomically. A name that is taken is
// [ErrExists].
//
// Similar to: rbd rename.
func (c *Cluster) Rename(ctx context.Context, from, to Name) error {
	return c.pool(ctx, from.Pool, func(io *rados.IOContext) error {
		if err := present(io, from); err != nil {
			return err
		}
		err := wrap("rename", from.String(), rbd.GetImage(io, from.Image).Rename(to.Image))
		if is(err, ErrExists) {
			return &Error{Op: "create", Object: to.String(), Kind: ErrExists, Err: err}
		}
		return err
	})
}
