// Snapshots of images that nobody has open, without librbd. It asks the monitors for a
// snapshot's number when it takes it, and they answer when they next agree on anything,
// half a second later on average. So the number is asked for before, while there is other
// work.

package disk

/*
#include <rados/librados.h>
*/
import "C"

import (
	"context"
	"encoding/binary"
	"fmt"
	"slices"
	"sync"
	"syscall"

	"github.com/ceph/go-ceph/rados"
	"github.com/ceph/go-ceph/rbd"
)

// SnapshotNumber waits for the number of a snapshot that is to be taken. It is safe for
// concurrent use.
type SnapshotNumber func(context.Context) (uint64, error)

// ReserveSnapshot asks the monitors for a number in a pool, and does not wait for it. One
// that is not used is lost, and nothing else.
func (c *Cluster) ReserveSnapshot(pool string) SnapshotNumber {
	var number C.uint64_t
	asked := c.leave(func() error {
		return c.pool(context.Background(), pool, func(io *rados.IOContext) error {
			rc := C.rados_ioctx_selfmanaged_snap_create(C.rados_ioctx_t(io.Pointer()), &number)
			if rc < 0 {
				return syscall.Errno(-rc)
			}
			return nil
		})
	})
	var mu sync.Mutex
	var over bool
	var err error
	return func(ctx context.Context) (uint64, error) {
		mu.Lock()
		defer mu.Unlock()
		if !over {
			select {
			case err = <-asked:
				over = true
			case <-ctx.Done():
				return 0, ctx.Err()
			}
		}
		return uint64(number), err
	}
}

// TakeSnapshot takes the snapshot n.Snap as [Cluster.CreateSnapshot] does, with a number
// that was reserved in the image's pool if nobody has the image open. Else, and if number
// is nil, librbd takes it, with a number of its own.
//
// Similar to: rbd snap create.
func (c *Cluster) TakeSnapshot(ctx context.Context, n Name, number SnapshotNumber) error {
	if taken, err := c.takeBare(ctx, n, number, false); taken || err != nil {
		return err
	}
	return c.CreateSnapshot(ctx, n)
}

// Seal takes a snapshot as [Cluster.TakeSnapshot] does, and protects it.
//
// Similar to: rbd snap create, rbd snap protect.
func (c *Cluster) Seal(ctx context.Context, n Name, number SnapshotNumber) error {
	if taken, err := c.takeBare(ctx, n, number, true); taken || err != nil {
		return err
	}
	if err := c.CreateSnapshot(ctx, n); err != nil {
		return err
	}
	return c.ProtectSnapshot(ctx, n)
}

// takeBare takes a snapshot, or says that it is librbd's to take.
func (c *Cluster) takeBare(ctx context.Context, n Name, number SnapshotNumber, protect bool) (taken bool, err error) {
	if number == nil {
		return false, nil
	}
	err = c.pool(ctx, n.Pool, func(io *rados.IOContext) error {
		image := Name{Pool: n.Pool, Image: n.Image}
		id, h, err := headerOf(io, image)
		if err != nil || !h.plain() || len(h.watchers) > 0 {
			return err
		}
		locks, err := io.ListLockers("rbd_header."+id, lockName)
		if err != nil || locks.NumLockers > 0 { // by one who may come back, or by hand
			return wrap("read lock of", image.String(), err)
		}
		has, err := snapshotIDs(io, image, id)
		if err != nil {
			return err
		}
		snap, err := number(ctx)
		if err != nil {
			return wrap("create snapshot", n.String(), err)
		}
		if taken = !slices.ContainsFunc(has, func(other uint64) bool { return other > snap }); !taken {
			return nil
		}
		return takeSnapshot(io, n, id, snap, h.features&rbd.FeatureObjectMap != 0, protect)
	})
	return taken, err
}

// takeSnapshot takes the snapshot numbered snap. The order is librbd's, so that what is
// left of one that is cut off is what librbd leaves: the header, the snapshot's object
// map, the image's. Source: librbd, operation/SnapshotCreateRequest; cls_rbd's
// snapshot_add, object_map_snap_add, set_protection_status.
func takeSnapshot(io *rados.IOContext, n Name, id string, snap uint64, mapped, protect bool) error {
	header, objectMap := "rbd_header."+id, "rbd_object_map."+id
	in := binary.LittleEndian.AppendUint64(encodeStrings(n.Snap), snap)
	in = append(in, 1, 1, 4, 0, 0, 0, 0, 0, 0, 0) // two versions, a length, and that it is a user's
	if err := execWrite(io, header, "snapshot_add", in); err != nil {
		return wrap("create snapshot", n.String(), err)
	}
	if mapped {
		states, err := readObject(io, objectMap)
		if err == nil {
			err = io.WriteFull(fmt.Sprintf("%s.%016x", objectMap, snap), states)
		}
		if err == nil {
			err = execWrite(io, objectMap, "object_map_snap_add", nil)
		}
		if err != nil {
			return wrap("create object map of", n.String(), err)
		}
	}
	if !protect {
		return nil
	}
	in = append(binary.LittleEndian.AppendUint64(nil, snap), protected)
	return wrap("protect", n.String(), execWrite(io, header, "set_protection_status", in))
}
