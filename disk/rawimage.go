// A second, bare handle on an RBD image for bulk writing: asynchronous writes
// that need no copy, which go-ceph does not bind.

package disk

/*
#cgo LDFLAGS: -lrbd -lrados
#include <errno.h>
#include <stdlib.h>
#include <rados/librados.h>
#include <rbd/librbd.h>

// start_write begins a write and gives back its completion. The OSD is asked to
// keep the data in its cache: it is going to be asked for its checksum.
static int start_write(rbd_image_t image, uint64_t off, size_t len, const char *buf, rbd_completion_t *c) {
	int r = rbd_aio_create_completion(NULL, NULL, c);
	if (r < 0)
		return r;
	r = rbd_aio_write2(image, off, len, buf, *c, LIBRADOS_OP_FLAG_FADVISE_WILLNEED);
	if (r < 0)
		rbd_aio_release(*c);
	return r;
}

// end_write waits for a write and frees its completion.
static int end_write(rbd_completion_t c) {
	rbd_aio_wait_for_complete(c);
	int r = rbd_aio_get_return_value(c);
	rbd_aio_release(c);
	return r;
}
*/
import "C"

import (
	"fmt"
	"syscall"
	"time"
	"unsafe"

	"github.com/ceph/go-ceph/rados"
)

// rawImage is an open image. It is safe for concurrent use, as librbd is.
type rawImage struct {
	ioctx     *rados.IOContext
	name      string
	image     C.rbd_image_t
	size      int64
	chunk     int64 // the size of an object
	blockName string
	opened    time.Time
	striped   bool // an object does not hold one contiguous piece of the image
}

func openRawImage(ioctx *rados.IOContext, name string) (*rawImage, error) {
	r := &rawImage{ioctx: ioctx, name: name}
	cname := C.CString(name)
	defer C.free(unsafe.Pointer(cname))
	if rc := C.rbd_open(C.rados_ioctx_t(ioctx.Pointer()), cname, &r.image, nil); rc < 0 {
		return nil, r.fail("open", rc)
	}
	return r, r.stat()
}

// stat reads what an open image is like; on failure it is closed.
func (r *rawImage) stat() error {
	r.opened = time.Now()
	var info C.rbd_image_info_t
	rc := C.rbd_stat(r.image, &info, C.sizeof_rbd_image_info_t)
	var unit, count C.uint64_t
	if rc == 0 {
		rc = C.rbd_get_stripe_unit(r.image, &unit)
	}
	if rc == 0 {
		rc = C.rbd_get_stripe_count(r.image, &count)
	}
	if rc < 0 {
		settle(r.opened)
		C.rbd_close(r.image)
		return r.fail("stat", rc)
	}
	r.size, r.chunk = int64(info.size), int64(info.obj_size)
	r.striped = count > 1 || unit != info.obj_size
	r.blockName = C.GoString(&info.block_name_prefix[0])
	return nil
}

// close waits for the writes, gives up the exclusive lock and closes.
func (r *rawImage) close() error {
	settle(r.opened)
	if rc := C.rbd_close(r.image); rc < 0 {
		return r.fail("close", rc)
	}
	return nil
}

// fail makes an error in which syscall.Errno matches.
func (r *rawImage) fail(op string, rc C.int) error {
	return fmt.Errorf("%s image %s: %w", op, r.name, syscall.Errno(-rc))
}

// buffer is memory that librbd may hold on to: with the option
// rbd_disable_zero_copy_writes off and no cache, writes are sent out of it.
// Free it once all writes from it are over.
type buffer struct {
	p unsafe.Pointer
	b []byte
}

func newBuffer(n int64) buffer {
	p := C.malloc(C.size_t(n)) // cgo's malloc does not return nil
	return buffer{p, unsafe.Slice((*byte)(p), n)}
}

func (b buffer) free() { C.free(b.p) }

// write puts the spans of b at base in the image, all at once, and waits for
// them all.
func (r *rawImage) write(b buffer, base int64, spans []span) error {
	var failed C.int
	flying := make([]C.rbd_completion_t, 0, len(spans))
	for _, s := range spans {
		var c C.rbd_completion_t
		rc := C.start_write(r.image, C.uint64_t(base+s.off), C.size_t(s.n), (*C.char)(unsafe.Add(b.p, s.off)), &c)
		if rc < 0 {
			failed = rc
			break
		}
		flying = append(flying, c)
	}
	for _, c := range flying {
		if rc := C.end_write(c); rc < 0 && failed == 0 {
			failed = rc
		}
	}
	if failed < 0 {
		return r.fail("write to", failed)
	}
	return nil
}
