// Filling an image that nobody has ever written to, and nobody else opens, without
// librbd: its objects are written as they are, and the object map once, at the end. librbd
// copies what it is given, and has the map changed for each object.

package disk

/*
#include "object_write.h"
*/
import "C"

import (
	"encoding/binary"
	"fmt"
	"sync"
	"unsafe"

	"github.com/ceph/go-ceph/rados"
	"github.com/ceph/go-ceph/rbd"
)

// blank is an image to be filled, open, so that others see that somebody is at it. What
// is not plain is filled by librbd.
type blank struct {
	*rawImage
	plain  bool
	id     string
	mapped bool // it has an object map, which is for us to write

	mu     sync.Mutex
	count  uint64 // of its objects
	states []byte // of them, as an object map has them
}

func openBlank(io *rados.IOContext, name string) (*blank, error) {
	raw, err := openRawImage(io, name)
	if err != nil {
		return nil, err
	}
	b := &blank{rawImage: raw}
	if err := b.begin(Name{Image: name}); err != nil {
		_ = raw.close()
		return nil, err
	}
	return b, nil
}

// begin says of all objects that they are there, so that who removes a half image removes
// them all.
func (b *blank) begin(n Name) error {
	id, h, err := headerOf(b.ioctx, n)
	if err != nil {
		return err
	}
	snaps, err := snapshotIDs(b.ioctx, n, id)
	if err != nil {
		return err
	}
	b.id, b.plain = id, h.plain() && h.from == (parentKey{}) && len(snaps) == 0
	b.count = objects(uint64(h.size), h.order)
	b.states = make([]byte, (b.count+3)/4)
	b.mapped = b.plain && h.features&rbd.FeatureObjectMap != 0 && b.count > 0
	if !b.mapped {
		return nil
	}
	in := binary.LittleEndian.AppendUint64(make([]byte, 8), b.count) // from 0 to count
	in = append(in, objectExists, 0)                                 // whatever they were
	return wrap("fill", n.String(), execWrite(b.ioctx, "rbd_object_map."+b.id, "object_map_update", in))
}

// plain says that an image consists of header, object map and data, and its object map can
// be trusted.
func (h header) plain() bool { return plain(h.features) && h.flags == 0 }

// snapshotIDs are the numbers of an image's snapshots. The call is cls_rbd's
// get_snapcontext.
func snapshotIDs(io *rados.IOContext, n Name, id string) ([]uint64, error) {
	out, err := exec(io, "rbd_header."+id, "get_snapcontext", nil)
	if err == nil && len(out) < 12 {
		err = errShortAnswer
	}
	if err != nil {
		return nil, wrap("read snapshots of", n.String(), err)
	}
	all := make([]uint64, binary.LittleEndian.Uint32(out[8:]))
	if len(out[12:]) < 8*len(all) {
		return nil, wrap("read snapshots of", n.String(), errShortAnswer)
	}
	for i := range all {
		all[i] = binary.LittleEndian.Uint64(out[12+8*i:])
	}
	return all, nil
}

// largestWrite is what one operation writes at most. An OSD still has so much in its cache
// when it is asked for the sum right behind; of larger ones it reads back a part from its
// disk, and smaller ones keep it busy with themselves.
const largestWrite = 2 << 20

// write puts the spans of a buffer at base in the image, all in one object, waits for
// them all, and proves that the cluster holds them.
func (b *blank) write(buf buffer, base int64, spans []span) error {
	no, off := base/b.chunk, base%b.chunk
	if !b.plain {
		sums := make([]written, len(spans))
		for i, s := range spans { // before librbd sees the bytes: what goes wrong from here on shows
			sums[i] = written{span{off + s.off, s.n}, cephCRC(crcSeed, buf.b[s.off:s.off+s.n])}
		}
		if err := b.rawImage.write(buf, base, spans); err != nil {
			return err
		}
		return b.prove(no, sums)
	}
	var pieces []C.struct_piece
	for _, s := range spans {
		for ; s.n > 0; s.off, s.n = s.off+largestWrite, s.n-largestWrite {
			pieces = append(pieces, C.struct_piece{data: (*C.char)(unsafe.Add(buf.p, s.off)),
				off: C.uint64_t(off + s.off), len: C.uint64_t(min(s.n, largestWrite))})
		}
	}
	var mem arena
	defer mem.free()
	object := mem.bytes(fmt.Appendf(nil, "%s.%016x\x00", b.blockName, no))
	rc := C.object_write(C.rados_ioctx_t(b.ioctx.Pointer()), object, C.uint64_t(b.chunk), unsafe.SliceData(pieces), C.int(len(pieces)))
	if rc < 0 {
		return b.fail("write to", rc)
	}
	for _, p := range pieces {
		w := written{span{int64(p.off), int64(p.len)}, uint32(p.sent)}
		if err := b.compare(no, w, uint32(p.held)); err != nil {
			return err
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.states[no/4] |= objectExists << (6 - 2*(no%4))
	return nil
}

// finish says which objects are there.
func (b *blank) finish() error {
	if !b.mapped {
		return nil
	}
	err := execWrite(b.ioctx, "rbd_object_map."+b.id, "object_map_save", encodeObjectMap(b.states, b.count))
	return wrap("fill", b.name, err)
}
