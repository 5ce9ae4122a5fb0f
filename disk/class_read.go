// Several questions to one object in one read operation: methods of the rbd class, and
// who watches it.

package disk

/*
#include <stdlib.h>
#include "class_read.h"
*/
import "C"

import (
	"fmt"
	"syscall"
	"unsafe"

	"github.com/ceph/go-ceph/rados"
)

// ask calls reading methods of the rbd class on an object, all with the same input, and
// lists who watches it.
func ask(io *rados.IOContext, object string, in []byte, methods ...string) (out [][]byte, by []Watcher, err error) {
	var mem arena
	defer mem.free()
	names := unsafe.Slice((**C.char)(mem.room(len(methods)*int(unsafe.Sizeof((*C.char)(nil))))), len(methods))
	for i, m := range methods {
		names[i] = mem.bytes(append([]byte(m), 0))
	}
	given := make([]*C.char, len(methods))
	lengths := make([]C.size_t, len(methods))
	var watchers *C.struct_watcher
	var watching C.size_t
	rc := C.class_read(C.rados_ioctx_t(io.Pointer()), mem.bytes(append([]byte(object), 0)), unsafe.SliceData(names), C.int(len(methods)),
		mem.bytes(in), C.size_t(len(in)), unsafe.SliceData(given), unsafe.SliceData(lengths), &watchers, &watching)
	if rc < 0 {
		return nil, nil, syscall.Errno(-rc)
	}
	mem = append(mem, unsafe.Pointer(watchers))
	for i, p := range given {
		mem = append(mem, unsafe.Pointer(p))
		out = append(out, C.GoBytes(unsafe.Pointer(p), C.int(lengths[i])))
	}
	by = []Watcher{}
	for _, w := range unsafe.Slice(watchers, int(watching)) {
		by = append(by, Watcher{Addr: C.GoString(&w.addr[0]), Client: fmt.Sprintf("client.%d", w.client)})
	}
	return out, by, nil
}
