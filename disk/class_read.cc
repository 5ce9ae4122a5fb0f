// librados lists watchers by its C++ interface alone, and go-ceph knows the C one:
// this is the way across.

#include "class_read.h"

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <list>
#include <vector>

#include <rados/librados.hpp>

int class_read(rados_ioctx_t io, const char *object, const char *const *methods, int count,
	const char *in, size_t in_len, char **out, size_t *out_len,
	struct watcher **watchers, size_t *watchers_len)
try {
	librados::IoCtx ctx;
	librados::IoCtx::from_rados_ioctx_t(io, ctx);
	librados::ObjectReadOperation op;
	librados::bufferlist input;
	input.append(in, in_len);
	std::vector<librados::bufferlist> given(count);
	std::vector<int> results(count + 1, 0);
	for (int i = 0; i < count; i++)
		op.exec("rbd", methods[i], input, &given[i], &results[i]);
	std::list<obj_watch_t> watching;
	if (watchers)
		op.list_watchers(&watching, &results[count]);
	int r = ctx.operate(object, &op, nullptr);
	for (size_t i = 0; r >= 0 && i < results.size(); i++)
		if (results[i] < 0)
			r = results[i];
	if (r < 0)
		return r;
	bool full = false;
	for (int i = 0; i < count; i++) {
		out_len[i] = given[i].length();
		out[i] = static_cast<char *>(malloc(out_len[i] + 1));
		full = full || !out[i];
		if (out[i])
			memcpy(out[i], given[i].c_str(), out_len[i]);
	}
	if (watchers) {
		*watchers_len = watching.size();
		*watchers = static_cast<struct watcher *>(calloc(watching.size() + 1, sizeof(struct watcher)));
		full = full || !*watchers;
		size_t i = 0;
		for (auto &w : watching) {
			if (!*watchers)
				break;
			strncpy((*watchers)[i].addr, w.addr, sizeof((*watchers)[i].addr) - 1);
			(*watchers)[i++].client = w.watcher_id;
		}
	}
	if (full) {
		for (int i = 0; i < count; i++)
			free(out[i]);
		if (watchers)
			free(*watchers);
		return -ENOMEM;
	}
	return 0;
} catch (const std::exception &) {
	return -EIO;
}
