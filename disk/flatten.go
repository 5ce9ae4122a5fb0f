// The long operations of librbd, with the progress and the cancellation that
// go-ceph does not bind: flatten and rollback.

package disk

/*
#include <stdint.h>
#include <stdlib.h>
#include <rados/librados.h>
#include <rbd/librbd.h>

extern int vmdiskProgress(uint64_t done, uint64_t total, uintptr_t handle);

// The handle of a Go value is a number and not an address: Go must never hold one as a
// pointer.
static int progressed(uint64_t done, uint64_t total, void *arg) {
	return vmdiskProgress(done, total, (uintptr_t)arg);
}

static int flatten(rbd_image_t image, uintptr_t handle) {
	return rbd_flatten_with_progress(image, progressed, (void *)handle);
}

static int rollback(rbd_image_t image, const char *snap, uintptr_t handle) {
	return rbd_snap_rollback_with_progress(image, snap, progressed, (void *)handle);
}
*/
import "C"

import (
	"context"
	"runtime/cgo"
	"syscall"
	"time"
	"unsafe"

	"github.com/ceph/go-ceph/rados"
)

// Flatten copies into a clone what it shares with its parent, and parts them. It
// blocks for as long as that takes; progress, which may be nil, is told objects.
// The image may be open and written to meanwhile; then whoever has its lock does
// the work, and a machine's QEMU cannot be told to stop. An image without a parent
// is [ErrInvalid]. When ctx ends first the image keeps its parent, whatever was
// copied until then, and its content.
//
// Similar to: rbd flatten.
func (c *Cluster) Flatten(ctx context.Context, n Name, progress func(done, total int64)) error {
	return c.pool(ctx, n.Pool, func(io *rados.IOContext) error {
		err := withProgress(ctx, progress, func(p *watched) error { return p.flatten(io, n) })
		return wrap("flatten", n.String(), err)
	})
}

// watched is a call into librbd that tells how far it is.
type watched struct {
	ctx      context.Context
	progress func(done, total int64)
	handle   cgo.Handle
}

// withProgress runs f. If ctx ended meanwhile and f failed, that was why.
func withProgress(ctx context.Context, progress func(done, total int64), f func(*watched) error) error {
	w := &watched{ctx: ctx, progress: progress}
	w.handle = cgo.NewHandle(w)
	defer w.handle.Delete()
	err := f(w)
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

//export vmdiskProgress
func vmdiskProgress(done, total C.uint64_t, handle C.uintptr_t) C.int {
	w := cgo.Handle(handle).Value().(*watched)
	if w.progress != nil { // also if it is to stop: something was done
		w.progress(int64(done), int64(total))
	}
	if w.ctx.Err() != nil {
		return -C.int(syscall.ECANCELED)
	}
	return 0
}

func (w *watched) flatten(io *rados.IOContext, n Name) error {
	return withBare(io, n, func(image C.rbd_image_t) C.int {
		return C.flatten(image, C.uintptr_t(w.handle))
	})
}

func (w *watched) rollback(io *rados.IOContext, n Name) error {
	snap := C.CString(n.Snap)
	defer C.free(unsafe.Pointer(snap))
	return withBare(io, n, func(image C.rbd_image_t) C.int {
		return C.rollback(image, snap, C.uintptr_t(w.handle))
	})
}

// withBare runs f with an image opened for writing.
func withBare(io *rados.IOContext, n Name, f func(C.rbd_image_t) C.int) error {
	if err := present(io, n); err != nil {
		return err
	}
	name := C.CString(n.Image)
	defer C.free(unsafe.Pointer(name))
	var image C.rbd_image_t
	rc := C.rbd_open(C.rados_ioctx_t(io.Pointer()), name, &image, nil)
	if rc < 0 {
		return syscall.Errno(-rc)
	}
	opened := time.Now()
	rc = f(image)
	settle(opened)
	if closed := C.rbd_close(image); rc >= 0 {
		rc = closed
	}
	if rc < 0 {
		return syscall.Errno(-rc)
	}
	return nil
}
