// Giving a volume that nobody has open another size.

package disk

import (
	"context"
	"fmt"

	"github.com/ceph/go-ceph/rbd"
)

// ResizeVolume gives a volume that nobody has open a size of to bytes, a whole
// number of GiB, if it still has from bytes; else it is [ErrInUse].
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
	by, err := c.Watchers(ctx, n) // before we are one ourselves
	if err == nil && len(by) > 0 {
		err = inUse("resize", n, by)
	}
	if err == nil {
		err = c.notByHand(ctx, "resize", n)
	}
	if err != nil {
		return err
	}
	return c.edit(ctx, n, func(img *rbd.Image) error {
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
