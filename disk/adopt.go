// Filling a disk of a machine with what is in its file.

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
