// One read operation on an object: methods of the rbd class, and who watches it.

#ifndef CLASS_READ_H
#define CLASS_READ_H

#include <rados/librados.h>

#ifdef __cplusplus
extern "C" {
#endif

struct watcher {
	char addr[256];
	int64_t client;
};

// class_read calls count methods, each with the input in and out[i] for what it gives,
// and lists who watches the object if watchers is not null. What it gives is to be
// freed, unless it fails. It returns 0 or an errno, negative.
int class_read(rados_ioctx_t io, const char *object, const char *const *methods, int count,
	const char *in, size_t in_len, char **out, size_t *out_len,
	struct watcher **watchers, size_t *watchers_len);

#ifdef __cplusplus
}
#endif
#endif
