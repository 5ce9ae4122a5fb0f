// Proving that the cluster holds what was written, without moving it back: the
// OSD's own CRC32C of an object is compared with that of the source.

package disk

/*
#include <stdlib.h>
#include <rados/librados.h>
*/
import "C"

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"syscall"
	"unsafe"
)

// errNotStored is the cause when the cluster holds other bytes than were sent.
var errNotStored = errors.New("the cluster does not hold what was written")

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// cephCRC continues Ceph's crc32c: the same polynomial as Go's, but with no
// inversion at the ends. It starts from crcSeed.
func cephCRC(crc uint32, p []byte) uint32 { return ^crc32.Update(^crc, castagnoli, p) }

const crcSeed = ^uint32(0)

// written is a span of an object and the CRC of what was sent there.
type written struct {
	span
	crc uint32
}

// prove compares the written spans of the object numbered no with what its OSD
// holds: the OSD reads and sums them (rados_checksum), so no data comes back over
// the wire. They were written with FADVISE_WILLNEED, so that an OSD may still have them
// in its cache.
//
// BlueStore checks its own checksum of each block at every read, so what the
// disk loses later is an error and never other data.
func (r *rawImage) prove(no int64, ws []written) error {
	object := C.CString(fmt.Sprintf("%s.%016x", r.blockName, no))
	defer C.free(unsafe.Pointer(object))
	for _, w := range ws {
		crc, err := r.checksum(object, w.span)
		if err != nil {
			return fmt.Errorf("%w: object %d of image %s: %w", errNotStored, no, r.name, err)
		}
		if err := r.compare(no, w, crc); err != nil {
			return err
		}
	}
	return nil
}

// compare is an error if an OSD holds something else than what was written.
func (r *rawImage) compare(no int64, w written, held uint32) error {
	if held == w.crc {
		return nil
	}
	return fmt.Errorf("%w: object %d of image %s, bytes %d to %d: CRC32C %08x, sent %08x",
		errNotStored, no, r.name, w.off, w.off+w.n, held, w.crc)
}

// checksum has the OSD compute the CRC of part of an object.
func (r *rawImage) checksum(object *C.char, s span) (uint32, error) {
	var seed [4]byte
	var out [8]byte // the number of checksums, then the checksum
	binary.LittleEndian.PutUint32(seed[:], crcSeed)
	rc := C.rados_checksum(C.rados_ioctx_t(r.ioctx.Pointer()), object, C.LIBRADOS_CHECKSUM_TYPE_CRC32C,
		(*C.char)(unsafe.Pointer(&seed[0])), C.size_t(len(seed)),
		C.size_t(s.n), C.uint64_t(s.off), 0,
		(*C.char)(unsafe.Pointer(&out[0])), C.size_t(len(out)))
	if rc < 0 {
		return 0, syscall.Errno(-rc)
	}
	return binary.LittleEndian.Uint32(out[4:]), nil
}
