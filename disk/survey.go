// Surveying a pool: every image with its size, age and snapshots, by one read of
// its header each.

package disk

import (
	"context"
	"encoding/binary"
	"slices"
	"time"

	"github.com/ceph/go-ceph/rados"
)

// Surveyed is an image as its header describes it.
type Surveyed struct {
	Name    Name
	Size    int64 // bytes
	Created time.Time
	Snaps   []SnapTaken // oldest first
}

// SnapTaken is a snapshot's name and when it was taken.
type SnapTaken struct {
	Name string
	At   time.Time
}

// Survey describes every image of a pool, by name. What goes meanwhile is left out.
//
// Similar to: rbd ls -l.
func (c *Cluster) Survey(ctx context.Context, pool string) ([]Surveyed, error) {
	var all []Surveyed
	err := c.pool(ctx, pool, func(io *rados.IOContext) error {
		ids, err := directory(io, pool)
		if err != nil {
			return err
		}
		names := make([]string, 0, len(ids))
		for name := range ids {
			names = append(names, name)
		}
		slices.Sort(names)
		all, err = each(ctx, names, func(name string) (Surveyed, error) {
			return survey(io, Name{Pool: pool, Image: name}, ids[name])
		})
		return err
	})
	return all, err
}

// survey asks one header. The calls are cls_rbd's get_size, get_create_timestamp
// and get_snapcontext; an image without snapshots is one read.
func survey(io *rados.IOContext, n Name, id string) (Surveyed, error) {
	s := Surveyed{Name: n}
	op := rados.CreateReadOp()
	defer op.Release()
	size := op.Exec("rbd", "get_size", binary.LittleEndian.AppendUint64(nil, noSnap))
	created := op.Exec("rbd", "get_create_timestamp", nil)
	snaps := op.Exec("rbd", "get_snapcontext", nil)
	if err := op.Operate(io, "rbd_header."+id, rados.OperationNoFlag); err != nil {
		return s, wrap("read header of", n.String(), err)
	}
	out, err := size.Bytes()
	if err == nil && len(out) < 9 { // the order, one byte, and the size
		err = errShortAnswer
	}
	if err != nil {
		return s, wrap("read size of", n.String(), err)
	}
	s.Size = int64(binary.LittleEndian.Uint64(out[1:]))
	if out, err = created.Bytes(); err == nil {
		s.Created, err = decodeTime(out)
	}
	if err != nil {
		return s, wrap("read age of", n.String(), err)
	}
	var list []uint64
	if out, err = snaps.Bytes(); err == nil {
		list, err = decodeSnapContext(out)
	}
	if err != nil {
		return s, wrap("list snapshots of", n.String(), err)
	}
	for _, snap := range slices.Backward(list) { // they come youngest first
		taken, err := snapshotOf(io, n, id, snap)
		if is(err, ErrNotFound) {
			continue
		}
		if err != nil {
			return s, err
		}
		s.Snaps = append(s.Snaps, taken)
	}
	return s, nil
}

// snapshotOf asks a header for one snapshot: cls_rbd's get_snapshot_name and
// get_snapshot_timestamp.
func snapshotOf(io *rados.IOContext, n Name, id string, snap uint64) (SnapTaken, error) {
	var s SnapTaken
	in := binary.LittleEndian.AppendUint64(nil, snap)
	op := rados.CreateReadOp()
	defer op.Release()
	name, at := op.Exec("rbd", "get_snapshot_name", in), op.Exec("rbd", "get_snapshot_timestamp", in)
	err := op.Operate(io, "rbd_header."+id, rados.OperationNoFlag)
	var out []byte
	if err == nil {
		out, err = name.Bytes()
	}
	if err == nil {
		s.Name, _, err = decodeString(out)
	}
	if err == nil {
		out, err = at.Bytes()
	}
	if err == nil {
		s.At, err = decodeTime(out)
	}
	return s, wrap("read snapshot of", n.String(), err)
}

// decodeTime reads seconds and nanoseconds.
func decodeTime(b []byte) (time.Time, error) {
	if len(b) < 8 {
		return time.Time{}, errShortAnswer
	}
	return time.Unix(int64(binary.LittleEndian.Uint32(b)), int64(binary.LittleEndian.Uint32(b[4:]))).UTC(), nil
}

// decodeSnapContext reads the ids of an image's snapshots: a sequence number, how
// many there are, and each.
func decodeSnapContext(b []byte) ([]uint64, error) {
	if len(b) < 12 {
		return nil, errShortAnswer
	}
	count, b := uint64(binary.LittleEndian.Uint32(b[8:])), b[12:]
	if uint64(len(b)) < 8*count {
		return nil, errShortAnswer
	}
	var all []uint64
	for range count {
		all, b = append(all, binary.LittleEndian.Uint64(b)), b[8:]
	}
	return all, nil
}
