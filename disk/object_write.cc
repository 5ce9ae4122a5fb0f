// librados copies what the C interface is given, and sums up what it sends, which is what
// a proof needs, too: in C++ neither is done twice.

#include "object_write.h"

#include <algorithm>
#include <cerrno>
#include <deque>
#include <vector>

#include <rados/librados.hpp>

static const uint32_t seed = ~0u;

// behindWrites has an OSD answer after the writes that were sent before, also if those have
// to wait, for a scrub or for a copy that is being recovered; and in a full pool, too.
static const int behindWrites = librados::OPERATION_ORDER_READS_WRITES | librados::OPERATION_FULL_TRY;

namespace {

// started keeps operations until all of them have ended: librados writes into what they
// were given.
struct started {
	std::vector<librados::AioCompletion *> all;
	int r = 0;

	librados::AioCompletion *next()
	{
		all.push_back(librados::Rados::aio_create_completion());
		return all.back();
	}
	void note(int rc)
	{
		if (rc >= 0)
			return;
		all.back()->release();
		all.pop_back();
		r = rc;
	}
	int wait()
	{
		for (auto c : all) {
			c->wait_for_complete();
			if (r == 0)
				r = std::min(0, c->get_return_value());
			c->release();
		}
		all.clear();
		return r;
	}
	~started() { wait(); }
};

} // namespace

int object_write(rados_ioctx_t io, const char *object, uint64_t object_size, struct piece *pieces, int count)
{
	try {
		librados::IoCtx ctx;
		librados::IoCtx::from_rados_ioctx_t(io, ctx);
		librados::bufferlist first;
		first.append(reinterpret_cast<const char *>(&seed), sizeof(seed)); // little-endian, as Ceph's
		std::deque<librados::bufferlist> sums(count);
		started flying;
		for (int i = 0; i < count && flying.r == 0; i++) {
			piece &p = pieces[i];
			librados::bufferlist data;
			data.push_back(ceph::buffer::create_static(p.len, const_cast<char *>(p.data)));
			p.sent = data.crc32c(seed); // which the messenger asks for again
			librados::ObjectWriteOperation op;
			if (i == 0)
				op.set_alloc_hint(object_size, object_size);
			op.write(p.off, data);
			op.set_op_flags2(LIBRADOS_OP_FLAG_FADVISE_WILLNEED);
			flying.note(ctx.aio_operate(object, flying.next(), &op));
			if (flying.r < 0)
				break;
			librados::ObjectReadOperation proof;
			proof.checksum(LIBRADOS_CHECKSUM_TYPE_CRC32C, first, p.off, p.len, 0, &sums[i], nullptr);
			flying.note(ctx.aio_operate(object, flying.next(), &proof, behindWrites, nullptr));
		}
		if (flying.wait() < 0)
			return flying.r;
		for (int i = 0; i < count; i++) {
			if (sums[i].length() != 2 * sizeof(uint32_t)) // how many, then the one
				return -EIO;
			sums[i].begin(sizeof(uint32_t)).copy(sizeof(uint32_t), reinterpret_cast<char *>(&pieces[i].held));
		}
	} catch (const std::exception &) {
		return -EIO;
	}
	return 0;
}
