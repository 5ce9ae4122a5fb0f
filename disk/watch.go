// A watch on an object. go-ceph's makes librados wait until somebody listens, in the thread
// that ends all other calls, and closes channels that may be sent on at that moment.

package disk

/*
#include <stdint.h>
#include <stdlib.h>
#include <rados/librados.h>

extern void vmdiskNotified(uintptr_t key, uint64_t id, void *data, size_t len);
extern void vmdiskLost(uintptr_t key);

// A key is a number and not an address: Go must never hold one as a pointer.

static void notified(void *arg, uint64_t id, uint64_t cookie, uint64_t by, void *data, size_t len) {
	vmdiskNotified((uintptr_t)arg, id, data, len);
}

static void lost(void *arg, uint64_t cookie, int err) {
	vmdiskLost((uintptr_t)arg);
}

static int watch(rados_ioctx_t io, const char *object, uint64_t *cookie, uintptr_t key) {
	return rados_watch3(io, object, cookie, notified, lost, 0, (void *)key);
}
*/
import "C"

import (
	"sync"
	"sync/atomic"
	"syscall"
	"unsafe"

	"github.com/ceph/go-ceph/rados"
)

// observer hears what is said on an object. Its bell rings when there is something to
// take.
type observer struct {
	io     *rados.IOContext
	object *C.char
	key    uintptr
	cookie C.uint64_t
	bell   chan struct{}

	mu   sync.Mutex
	said []notification
	lost bool
}

// notification waits for an answer.
type notification struct {
	id   C.uint64_t
	text []byte
}

// observers are found by key: librados may still say something when one is gone.
var (
	observers   sync.Map
	observerKey atomic.Uintptr
)

// observe watches an object, which must exist, until end.
func observe(io *rados.IOContext, object string) (*observer, error) {
	o := &observer{io: io, object: C.CString(object), key: observerKey.Add(1), bell: make(chan struct{}, 1)}
	observers.Store(o.key, o)
	rc := C.watch(C.rados_ioctx_t(io.Pointer()), o.object, &o.cookie, C.uintptr_t(o.key))
	if rc < 0 {
		o.free()
		return nil, syscall.Errno(-rc)
	}
	return o, nil
}

// end takes the watch away. If no OSD answers it expires.
func (o *observer) end() {
	C.rados_unwatch2(C.rados_ioctx_t(o.io.Pointer()), o.cookie)
	o.free()
}

func (o *observer) free() {
	observers.Delete(o.key)
	C.free(unsafe.Pointer(o.object))
}

// take gives what was said since it was last called, and whether the watch is lost.
func (o *observer) take() (said []notification, lost bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	said, o.said = o.said, nil
	return said, o.lost
}

// answer does not wait until it is heard: who asked hears it, or asks again.
func (o *observer) answer(n notification, text string) {
	data := C.CString(text)
	defer C.free(unsafe.Pointer(data))
	C.rados_notify_ack(C.rados_ioctx_t(o.io.Pointer()), o.object, n.id, o.cookie, data, C.int(len(text)))
}

// tell changes what there is to take. It never waits: librados calls it.
func tell(key C.uintptr_t, change func(*observer)) {
	found, ok := observers.Load(uintptr(key))
	if !ok {
		return
	}
	o := found.(*observer)
	o.mu.Lock()
	change(o)
	o.mu.Unlock()
	select {
	case o.bell <- struct{}{}:
	default: // it rings already
	}
}

//export vmdiskNotified
func vmdiskNotified(key C.uintptr_t, id C.uint64_t, data unsafe.Pointer, n C.size_t) {
	text := C.GoBytes(data, C.int(n))
	tell(key, func(o *observer) { o.said = append(o.said, notification{id, text}) })
}

//export vmdiskLost
func vmdiskLost(key C.uintptr_t) {
	tell(key, func(o *observer) { o.lost = true })
}
