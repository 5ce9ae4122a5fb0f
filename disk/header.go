// Reading image headers without opening images: two small reads each instead of
// the dozen, and the watch, that opening costs. It is what makes a list of a
// thousand disks take a fraction of a second.

package disk

import (
	"context"
	"sync"

	"github.com/ceph/go-ceph/rados"
)

// noSnap stands for the image itself in calls of the rbd class. Source:
// CEPH_NOSNAP in Ceph's rados.h.
const noSnap = ^uint64(0) - 1

// Sizes reads the sizes of images in bytes. One that is not there is left out.
//
// Similar to: the size column of rbd ls -l.
func (c *Cluster) Sizes(ctx context.Context, names []Name) (map[Name]int64, error) {
	byPool := map[string][]string{}
	for _, n := range names {
		byPool[n.Pool] = append(byPool[n.Pool], n.Image)
	}
	sizes := make(map[Name]int64, len(names))
	var mu sync.Mutex
	for pool, images := range byPool {
		err := c.pool(ctx, pool, func(io *rados.IOContext) error {
			_, err := each(ctx, images, func(image string) (struct{}, error) {
				n := Name{Pool: pool, Image: image}
				_, h, err := headerOf(io, n)
				if err == nil {
					mu.Lock()
					sizes[n] = h.size
					mu.Unlock()
				}
				return struct{}{}, err
			})
			return err
		})
		if err := ignore(err, ErrNotFound); err != nil {
			return nil, err
		}
	}
	return sizes, nil
}

// featureMigrating is Ceph's RBD_FEATURE_MIGRATING.
const featureMigrating = 1 << 9

// headerOf reads the header of an image that is named.
func headerOf(io *rados.IOContext, n Name) (id string, h header, err error) {
	if id, err = imageID(io, n); err != nil {
		return "", h, err
	}
	h, err = readHeader(io, n, id)
	return id, h, err
}

// migrating says that an image may have an origin, see [Filling].
func (h header) migrating() bool { return h.features&featureMigrating != 0 }

// imageID is the id by which an image's header is named.
func imageID(io *rados.IOContext, n Name) (string, error) {
	out, err := exec(io, "rbd_id."+n.Image, "get_id", nil)
	if err != nil {
		return "", wrap("read id of", n.String(), err)
	}
	id, _, err := decodeString(out)
	return id, wrap("read id of", n.String(), err)
}

// exec calls a reading method of the rbd class on an object.
func exec(io *rados.IOContext, object, method string, in []byte) ([]byte, error) {
	op := rados.CreateReadOp()
	defer op.Release()
	step := op.Exec("rbd", method, in)
	if err := op.Operate(io, object, rados.OperationNoFlag); err != nil {
		return nil, err
	}
	return step.Bytes()
}

// execWrite calls a writing method of the rbd class on an object that is there.
func execWrite(io *rados.IOContext, object, method string, in []byte) error {
	op := rados.CreateWriteOp()
	defer op.Release()
	op.AssertExists()
	op.Exec("rbd", method, in)
	return op.Operate(io, object, rados.OperationNoFlag)
}

// readObject is all that an object holds.
func readObject(io *rados.IOContext, object string) ([]byte, error) {
	stat, err := io.Stat(object)
	if err != nil {
		return nil, err
	}
	data := make([]byte, stat.Size)
	n, err := io.Read(object, data, 0)
	return data[:max(n, 0)], err
}
