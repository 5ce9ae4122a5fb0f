// A volume that is a clone of a backup: there at once, and reading from the backup what it
// has not of its own.

package disk

import (
	"context"
	"errors"

	"github.com/ceph/go-ceph/rados"
	"github.com/ceph/go-ceph/rbd"
)

// CloneBackup makes dst a volume that is a clone of a backup's snapshot, size bytes large.
// This user need only read the backups' pool, as must whoever opens the volume: the clone
// is of format 1, of which the snapshot's image is not told, so the snapshot must be
// protected ([ErrNotProtected]). Without that cap it is [ErrPermission].
//
// Similar to: rbd clone --rbd-default-clone-format 1.
func (c *Cluster) CloneBackup(ctx context.Context, src Name, size int64, dst Name) error {
	return c.fromSnapshot(ctx, src, func(from *rados.IOContext, img *rbd.Image) error {
		if err := checkFits(img, src, size); err != nil {
			return err
		}
		return c.pool(ctx, dst.Pool, func(to *rados.IOContext) error {
			err := c.cloneOrdinary(ctx, img, src, to, size, cloneForm{order: volumeOrder, format: 1}, []Name{dst})
			return removedMeanwhile(from, src, err)
		})
	})
}

// Loosen takes a snapshot's protection off, unless clones hang on it.
//
// Similar to: rbd snap unprotect.
func (c *Cluster) Loosen(ctx context.Context, n Name) error {
	whole := Name{Pool: n.Pool, Image: n.Image}
	return c.edit(ctx, whole, func(img *rbd.Image) error {
		snap := img.GetSnapshot(n.Snap)
		protected, err := snap.IsProtected()
		if err != nil || !protected {
			return wrap("read protection of", n.String(), err)
		}
		err = wrap("unprotect", n.String(), snap.Unprotect())
		if errors.Is(err, ErrInUse) {
			return nil
		}
		return err
	})
}
