// A change to an object's omap that happens whole or not at all, and only if what
// is there is what the caller believes: compare-and-swap over several keys, which
// go-ceph does not bind.

package disk

/*
#include <stdlib.h>
#include <rados/librados.h>
*/
import "C"

import (
	"bytes"
	"slices"
	"syscall"
	"unsafe"

	"github.com/ceph/go-ceph/rados"
)

// omapChange is a compare-and-swap. A key in expect must have that value, or be
// absent where the value is empty.
type omapChange struct {
	expect map[string][]byte
	set    map[string][]byte
	remove []string
}

// apply makes the change, and the object if there is none. It returns false, and
// has changed nothing, if an expectation does not hold. It works in a full pool:
// what it is for is also what makes room there.
func (o omapChange) apply(io *rados.IOContext, object string) (bool, error) {
	op := C.rados_create_write_op()
	defer C.rados_release_write_op(op)
	var mem arena
	defer mem.free()
	C.rados_write_op_create(op, C.LIBRADOS_CREATE_IDEMPOTENT, nil)
	for key, value := range o.expect {
		k, v := mem.bytes([]byte(key)), mem.bytes(value)
		C.rados_write_op_omap_cmp2(op, k, C.LIBRADOS_CMPXATTR_OP_EQ, v, C.size_t(len(key)), C.size_t(len(value)), nil)
	}
	for key, value := range o.set {
		k, v := mem.bytes([]byte(key)), mem.bytes(value)
		kn, vn := C.size_t(len(key)), C.size_t(len(value))
		C.rados_write_op_omap_set2(op, mem.pointer(k), mem.pointer(v), &kn, &vn, 1)
	}
	for _, key := range o.remove {
		kn := C.size_t(len(key))
		C.rados_write_op_omap_rm_keys2(op, mem.pointer(mem.bytes([]byte(key))), &kn, 1)
	}
	name := C.CString(object)
	defer C.free(unsafe.Pointer(name))
	rc := C.rados_write_op_operate2(op, C.rados_ioctx_t(io.Pointer()), name, nil, C.LIBRADOS_OPERATION_FULL_FORCE)
	switch {
	case rc == -C.int(syscall.ECANCELED):
		return false, nil
	case rc < 0:
		return false, syscall.Errno(-rc)
	}
	return true, nil
}

// done says whether an object's omap is as the change makes it.
func (o omapChange) done(has map[string][]byte) bool {
	for key, value := range o.set {
		if !bytes.Equal(has[key], value) {
			return false
		}
	}
	return !slices.ContainsFunc(o.remove, func(key string) bool { return has[key] != nil })
}

// fits says whether an object's omap is as the change expects it.
func (o omapChange) fits(has map[string][]byte) bool {
	for key, value := range o.expect {
		if !bytes.Equal(has[key], value) {
			return false
		}
	}
	return true
}

// arena is C memory that is freed at once.
type arena []unsafe.Pointer

func (a *arena) bytes(b []byte) *C.char {
	p := C.CBytes(b)
	*a = append(*a, p)
	return (*C.char)(p)
}

// room is so many bytes.
func (a *arena) room(n int) unsafe.Pointer {
	p := C.malloc(C.size_t(n))
	*a = append(*a, p)
	return p
}

// pointer is a C array of one string.
func (a *arena) pointer(s *C.char) **C.char {
	p := (**C.char)(a.room(int(unsafe.Sizeof(s))))
	*p = s
	return p
}

func (a *arena) free() {
	for _, p := range *a {
		C.free(p)
	}
}
