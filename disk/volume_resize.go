// Giving a volume that nobody has open another size.

package disk

import (
	"context"
	"fmt"
	"syscall"

	"github.com/ceph/go-ceph/rados"
	"github.com/ceph/go-ceph/rbd"
)

// ResizeVolume gives a volume that nobody has open a size of to bytes, a whole
// number of GiB, if it still has from bytes: of two at once one is [ErrInUse].
// Shrinking, which cuts data off, is [ErrInvalid] unless shrink is set. A volume
// that somebody has open is [ErrInUse] and names them: QEMU would not tell its
// guest. Shrinking takes a time in proportion to what is cut off; progress is told
// objects.
//
// Similar to: rbd resize.
func (c *Cluster) ResizeVolume(ctx context.Context, n Name, from, to int64, shrink bool, progress func(done, total int64)) error {
	if err := CheckVolumeSize(n, from, to, shrink); err != nil {
		return err
	}
	return c.pool(ctx, n.Pool, func(io *rados.IOContext) error {
		return c.alone(ctx, "resize", io, n, func(img *rbd.Image) error {
			has, err := img.GetSize()
			if err != nil {
				return wrap("read size of", n.String(), err)
			}
			if int64(has) != from {
				return &Error{Op: "resize", Object: n.String(), Kind: ErrInUse,
					Reason: fmt.Sprintf("somebody else resizes it: it was %s and is %s", FormatSize(from), FormatSize(int64(has)))}
			}
			told := func(done, total uint64, _ interface{}) int {
				progress(int64(done), int64(total))
				return 0
			}
			return wrap("resize", n.String(), img.Resize2(uint64(to), shrink, told, nil))
		})
	})
}

// CheckVolumeSize refuses a size that a volume of from bytes cannot have.
func CheckVolumeSize(n Name, from, to int64, shrink bool) error {
	if err := wholeGiB("resize", n, to); err != nil {
		return err
	}
	if to < from && !shrink {
		return &Error{Op: "resize", Object: n.String(), Kind: ErrInvalid,
			Reason: fmt.Sprintf("it is %s, shrinking it to %s would cut data off", FormatSize(from), FormatSize(to))}
	}
	return nil
}

// alone runs f with an image open and locked for writing, that nobody else has
// open. Where the image has locks, whoever comes meanwhile waits or is refused.
func (c *Cluster) alone(ctx context.Context, op string, io *rados.IOContext, n Name, f func(*rbd.Image) error) error {
	by, err := c.Watchers(ctx, n) // before we are one ourselves
	if err == nil && len(by) > 0 {
		err = inUse(op, n, by)
	}
	if err != nil {
		return err
	}
	img, err := rbd.OpenImage(io, n.Image, rbd.NoSnapshot)
	if err != nil {
		return wrap("open", n.String(), err)
	}
	defer img.Close()
	switch err := img.LockAcquire(rbd.LockModeExclusive); errno(err) {
	case 0:
		defer func() { _ = img.LockRelease() }() // closing gives it up, too
	case syscall.EINVAL: // a volume for several machines at once has no locks
	case syscall.EROFS, syscall.EAGAIN:
		return &Error{Op: op, Object: n.String(), Kind: ErrInUse, Err: err, Reason: "somebody else is at work on it"}
	default:
		return wrap("lock", n.String(), err)
	}
	return f(img)
}
