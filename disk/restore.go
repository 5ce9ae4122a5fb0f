// The place of a volume: how a new image, filled where nobody sees it, takes it.

package disk

import (
	"context"
	"slices"
	"strings"

	"github.com/ceph/go-ceph/rados"
	"github.com/ceph/go-ceph/rbd"
)

// restoringPrefix marks an image that is being filled. It is a prefix, so that
// neither Cinder nor a list of volumes takes it for one.
const restoringPrefix = "restoring."

// Restoring is what the image is called that is to become n.
func Restoring(n Name) Name { return Name{Pool: n.Pool, Image: restoringPrefix + n.Image} }

// Restored is the inverse of [Restoring]. Other images are what they are called.
func Restored(n Name) Name {
	return Name{Pool: n.Pool, Image: strings.TrimPrefix(n.Image, restoringPrefix)}
}

// Replaceable refuses a volume that a restored one cannot take the place of: one
// that is open or belongs to a machine ([ErrInUse]), or has snapshots other than
// those of backups ([ErrHasSnapshots]). Each is named.
func (c *Cluster) Replaceable(ctx context.Context, n Name) error {
	owner, err := c.Owner(ctx, n)
	if err == nil {
		return &Error{Op: "replace", Object: n.String(), Kind: ErrInUse, Holders: []string{owner.String()}}
	}
	if ignore(err, ErrNotFound) != nil {
		return err
	}
	return c.view(ctx, n, func(img *rbd.Image) error {
		by, err := watchers(img, n)
		if err != nil {
			return err
		}
		if len(by) > 0 {
			return inUse("replace", n, by)
		}
		snaps, err := snapshots(img, n)
		snaps = slices.DeleteFunc(snaps, IsBackupSnapshot)
		if err != nil || len(snaps) == 0 {
			return err
		}
		e := &Error{Op: "replace", Object: n.String(), Kind: ErrHasSnapshots}
		for _, s := range snaps {
			e.Holders = append(e.Holders, n.String()+"@"+s)
		}
		return e
	})
}

// CreateVolumeImage makes an empty image for a volume, named otherwise until it is
// one.
//
// Similar to: rbd create.
func (c *Cluster) CreateVolumeImage(ctx context.Context, n Name, size int64) error {
	return c.pool(ctx, n.Pool, func(io *rados.IOContext) error { return createImage(io, n, size, volumeOrder) })
}

// RestoredSize is how large a new volume of a backup is.
func (b Backup) RestoredSize() int64 { return RoundUp(b.Size) }
