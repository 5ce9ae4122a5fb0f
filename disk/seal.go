// Sealing an image that is whole: the protected snapshot that it is cloned from. librbd
// asks the monitors for its number when it takes it, and they answer when they next agree
// on anything, half a second later on average. So the number is asked for before, while
// the data is copied.

package disk

/*
#include <rados/librados.h>
*/
import "C"

import (
	"context"
	"encoding/binary"
	"fmt"
	"sync"
	"syscall"

	"github.com/ceph/go-ceph/rados"
	"github.com/ceph/go-ceph/rbd"
)

// SnapshotNumber is the number of a snapshot that is to be taken, or an error. It is safe
// for concurrent use.
type SnapshotNumber func() (uint64, error)

// ReserveSnapshot asks the monitors for a number in a pool, and does not wait for it. Call
// what it gives, which waits, before the Cluster is closed; a number that is not used is
// lost, and nothing else.
func (c *Cluster) ReserveSnapshot(ctx context.Context, pool string) SnapshotNumber {
	var number C.uint64_t
	var err error
	var asked sync.WaitGroup
	asked.Go(func() {
		err = c.pool(ctx, pool, func(io *rados.IOContext) error {
			if rc := C.rados_ioctx_selfmanaged_snap_create(C.rados_ioctx_t(io.Pointer()), &number); rc < 0 {
				return wrap("create snapshot in", "pool "+pool, syscall.Errno(-rc))
			}
			return nil
		})
	})
	return func() (uint64, error) {
		asked.Wait()
		return uint64(number), err
	}
}

// Seal takes the snapshot n.Snap, which nobody can remove before it is unprotected. The
// image is one that nobody has open or gets to know meanwhile; it need not have another
// snapshot. One that has, or is not plain, gets a number of librbd's.
//
// Similar to: rbd snap create, rbd snap protect.
func (c *Cluster) Seal(ctx context.Context, n Name, number SnapshotNumber) error {
	sealed := false
	err := c.pool(ctx, n.Pool, func(io *rados.IOContext) (err error) {
		sealed, err = seal(io, n, number)
		return err
	})
	if sealed || err != nil {
		return err
	}
	if err := c.CreateSnapshot(ctx, n); err != nil {
		return err
	}
	return c.ProtectSnapshot(ctx, n)
}

// seal takes the first snapshot of a plain image. The order is librbd's, so that what is
// left of one that is cut off is what librbd leaves: the header, the snapshot's object
// map, the image's. Source: librbd, operation/SnapshotCreateRequest; cls_rbd's
// snapshot_add, object_map_snap_add, set_protection_status.
func seal(io *rados.IOContext, n Name, number SnapshotNumber) (bool, error) {
	image := Name{Pool: n.Pool, Image: n.Image}
	id, h, err := headerOf(io, image)
	if err != nil {
		return false, err
	}
	if snaps, err := snapshotIDs(io, image, id); err != nil || len(snaps) > 0 || !h.plain() || len(h.watchers) > 0 {
		return false, err
	}
	snap, err := number()
	if err != nil {
		return false, err
	}
	header, objectMap := "rbd_header."+id, "rbd_object_map."+id
	in := binary.LittleEndian.AppendUint64(encodeStrings(n.Snap), snap)
	in = append(in, 1, 1, 4, 0, 0, 0, 0, 0, 0, 0) // two versions, a length, and that it is a user's
	if err := execWrite(io, header, "snapshot_add", in); err != nil {
		return false, wrap("create snapshot", n.String(), err)
	}
	if h.features&rbd.FeatureObjectMap != 0 {
		states, err := readObject(io, objectMap)
		if err == nil {
			err = io.WriteFull(fmt.Sprintf("%s.%016x", objectMap, snap), states)
		}
		if err == nil {
			err = execWrite(io, objectMap, "object_map_snap_add", nil)
		}
		if err != nil {
			return false, wrap("create object map of", n.String(), err)
		}
	}
	in = append(binary.LittleEndian.AppendUint64(nil, snap), protected)
	return true, wrap("protect", n.String(), execWrite(io, header, "set_protection_status", in))
}
