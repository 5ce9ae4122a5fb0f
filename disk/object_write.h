// Writing to one object, in pieces that are on their way together.

#ifndef OBJECT_WRITE_H
#define OBJECT_WRITE_H

#include <rados/librados.h>

#ifdef __cplusplus
extern "C" {
#endif

// piece is len bytes at data for an object's off, and what is computed of them: Ceph's
// CRC32C, from all ones on.
struct piece {
	const char *data;
	uint64_t off;
	uint64_t len;
	uint32_t crc;
};

// object_write writes the pieces and waits for all of them. The memory is sent as it is:
// nobody may write to it meanwhile. The OSD is told how large the object may become, and
// asked to keep the data in its cache. It returns 0 or an errno, negative.
int object_write(rados_ioctx_t io, const char *object, uint64_t object_size, struct piece *spans, int count);

#ifdef __cplusplus
}
#endif
#endif
