// Reading a snapshot and zeroing parts of an image, asynchronously and in
// parallel: what go-ceph does not bind of librbd.

package disk

/*
#include <stdlib.h>
#include <rbd/librbd.h>

static int start_read(rbd_image_t image, uint64_t off, size_t len, char *buf, rbd_completion_t *c) {
	int r = rbd_aio_create_completion(NULL, NULL, c);
	if (r < 0)
		return r;
	r = rbd_aio_read(image, off, len, buf, *c);
	if (r < 0)
		rbd_aio_release(*c);
	return r;
}

static int start_zero(rbd_image_t image, uint64_t off, size_t len, rbd_completion_t *c) {
	int r = rbd_aio_create_completion(NULL, NULL, c);
	if (r < 0)
		return r;
	r = rbd_aio_write_zeroes(image, off, len, *c, 0, 0);
	if (r < 0)
		rbd_aio_release(*c);
	return r;
}

static ssize_t finish(rbd_completion_t c) {
	rbd_aio_wait_for_complete(c);
	ssize_t r = rbd_aio_get_return_value(c);
	rbd_aio_release(c);
	return r;
}
*/
import "C"

import (
	"unsafe"

	"github.com/ceph/go-ceph/rados"
)

// openRawSnapshot opens an image, at a snapshot or without, for reading only.
func openRawSnapshot(ioctx *rados.IOContext, n Name) (*rawImage, error) {
	if err := present(ioctx, n); err != nil {
		return nil, err
	}
	r := &rawImage{ioctx: ioctx, name: n.Image}
	image := C.CString(n.Image)
	defer C.free(unsafe.Pointer(image))
	var snap *C.char
	if n.Snap != "" {
		snap = C.CString(n.Snap)
		defer C.free(unsafe.Pointer(snap))
	}
	if rc := C.rbd_open_read_only(C.rados_ioctx_t(ioctx.Pointer()), image, &r.image, snap); rc < 0 {
		return nil, r.fail("open", rc)
	}
	return r, r.stat()
}

// read fills the spans of b, all at once, from base on in the image. What the
// image does not have is zero.
func (r *rawImage) read(b buffer, base int64, spans []span) error {
	return r.all("read from", spans, func(s span, c *C.rbd_completion_t) C.int {
		return C.start_read(r.image, C.uint64_t(base+s.off), C.size_t(s.n), (*C.char)(unsafe.Add(b.p, s.off)), c)
	})
}

// zero makes the spans from base on zeros, and gives their space back where it
// can.
func (r *rawImage) zero(base int64, spans []span) error {
	return r.all("zero", spans, func(s span, c *C.rbd_completion_t) C.int {
		return C.start_zero(r.image, C.uint64_t(base+s.off), C.size_t(s.n), c)
	})
}

// all starts one operation a span and waits for every one that was started.
func (r *rawImage) all(op string, spans []span, start func(span, *C.rbd_completion_t) C.int) error {
	var failed C.int
	flying := make([]C.rbd_completion_t, 0, len(spans))
	for _, s := range spans {
		var c C.rbd_completion_t
		if rc := start(s, &c); rc < 0 {
			failed = rc
			break
		}
		flying = append(flying, c)
	}
	for _, c := range flying {
		if rc := C.finish(c); rc < 0 && failed == 0 {
			failed = C.int(rc)
		}
	}
	if failed < 0 {
		return r.fail(op, failed)
	}
	return nil
}
