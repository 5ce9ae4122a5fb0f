// librados copies what the C interface is given, and sums up what it sends, which is what
// a proof needs, too: in C++ neither is done twice.

#include "object_write.h"

#include <algorithm>
#include <cerrno>
#include <vector>

#include <rados/librados.hpp>

// largest is what one operation writes at most: an OSD that gets a few of this size works
// on one while the next is on its way.
static const uint64_t largest = 1 << 20;

static const uint32_t seed = ~0u;

int object_write(rados_ioctx_t io, const char *object, uint64_t object_size, struct piece *pieces, int count)
{
	int r = 0;
	std::vector<librados::AioCompletion *> flying;
	try {
		librados::IoCtx ctx;
		librados::IoCtx::from_rados_ioctx_t(io, ctx);
		for (int i = 0; i < count && r == 0; i++) {
			piece &s = pieces[i];
			s.crc = seed;
			for (uint64_t at = 0; at < s.len && r == 0; at += largest) {
				uint64_t n = std::min(largest, s.len - at);
				librados::bufferlist data;
				data.push_back(ceph::buffer::create_static(n, const_cast<char *>(s.data) + at));
				s.crc = data.crc32c(s.crc); // which the messenger asks for again
				librados::ObjectWriteOperation op;
				if (flying.empty())
					op.set_alloc_hint(object_size, object_size);
				op.write(s.off + at, data);
				op.set_op_flags2(LIBRADOS_OP_FLAG_FADVISE_WILLNEED);
				flying.push_back(librados::Rados::aio_create_completion());
				r = ctx.aio_operate(object, flying.back(), &op);
				if (r < 0) {
					flying.back()->release();
					flying.pop_back();
				}
			}
		}
	} catch (const std::exception &) {
		r = -EIO;
	}
	for (auto c : flying) {
		c->wait_for_complete();
		if (r == 0)
			r = std::min(0, c->get_return_value());
		c->release();
	}
	return r;
}
