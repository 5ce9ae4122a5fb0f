// Writing to one object, in pieces that are on their way together, with proof.

#ifndef OBJECT_WRITE_H
#define OBJECT_WRITE_H

#include <rados/librados.h>

#ifdef __cplusplus
extern "C" {
#endif

// piece is len bytes at data for an object's off, and Ceph's CRC32C, from all ones on, of
// what was sent and of what the OSD holds there.
struct piece {
	const char *data;
	uint64_t off;
	uint64_t len;
	uint32_t sent;
	uint32_t held;
};

// object_write writes each piece in an operation of its own, has the OSD sum it up right
// behind that, while it still is in the OSD's cache, and waits for all of them. The memory
// is sent as it is: nobody may write to it meanwhile. The OSD is told how large the object
// may become. It returns 0 or an errno, negative; whether the sums agree is for the caller
// to see.
int object_write(rados_ioctx_t io, const char *object, uint64_t object_size, struct piece *pieces, int count);

#ifdef __cplusplus
}
#endif
#endif
