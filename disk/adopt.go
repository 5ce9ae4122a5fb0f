// Filling a disk of a machine with what is in its files: with all of it, or, if it is a
// clone of what one of them holds, with what is above that.

package disk

import (
	"context"

	"github.com/ceph/go-ceph/rados"
)

// FillDisk copies a source into an image that is as large as it and empty, and
// verifies what Ceph holds. It blocks for as long as that takes; progress, which may be
// nil, is told bytes of the virtual size.
//
// Similar to: qemu-img convert -n.
func (c *Cluster) FillDisk(ctx context.Context, n Name, src *Source, progress func(done, total int64)) error {
	return c.pool(ctx, n.Pool, func(io *rados.IOContext) error {
		if err := present(io, n); err != nil {
			return err
		}
		return wrap("fill", n.String(), copySource(ctx, io, n.Image, src, progress))
	})
}

// FillClone is [Cluster.FillDisk] for a clone of the image of a basis, which holds what
// one of the source's backing files does: only where the source differs from that
// anything is written. It returns how many bytes that were. The source is the machine's
// disk, or the files below it alone. Files that are not those of the basis any more are
// [ErrBadSource].
//
// Similar to: qemu-img rebase.
func (c *Cluster) FillClone(ctx context.Context, n Name, src *Source, b *Basis, progress func(done, total int64)) (sent int64, err error) {
	upper, below := *src, b.Layer
	switch b.state {
	case src.state():
		below--
	case src.below.state():
	default:
		return 0, src.refuse("its backing files have changed since they were compared with %s", b.Image)
	}
	for upper.basis = src; below > 0; below-- {
		upper.above = append(upper.above, upper.basis)
		upper.basis = upper.basis.below
	}
	err = c.pool(ctx, n.Pool, func(io *rados.IOContext) error {
		if err := present(io, n); err != nil {
			return err
		}
		size, err := c.Size(ctx, n)
		if err != nil {
			return err
		}
		upper.size = min(upper.size, size)
		sent, err = copyInto(ctx, io, n.Image, &upper, progress)
		return wrap("fill", n.String(), err)
	})
	return sent, err
}

// touched says whether one of the files that are above the basis has anything in
// [off, off+n): data, or zeros that hide what is below.
func (s *Source) touched(off, n int64) (bool, error) {
	var buf []byte
	for _, f := range s.above {
		has, err := f.qcow2.has(&buf, off, min(n, f.qcow2.size-off))
		if err != nil {
			return false, f.refuse("%w", err)
		}
		if has {
			return true, nil
		}
	}
	return false, nil
}

// has says whether a cluster of [off, off+n) is not as in the backing file.
func (q *qcow2) has(buf *[]byte, off, n int64) (bool, error) {
	for end := off + n; off < end; {
		first := off >> q.clusterBits
		count := min((end-1)>>q.clusterBits+1-first, q.perTable()-first%q.perTable())
		table, err := q.entries(buf, first, count)
		if err != nil {
			return false, err
		}
		for _, b := range table {
			if b != 0 {
				return true, nil
			}
		}
		off = (first + count) << q.clusterBits
	}
	return false, nil
}
