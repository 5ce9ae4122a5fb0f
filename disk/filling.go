// Filling: a disk that is used before its data is in Ceph. What is not there yet is read
// from its origin, by librbd's import-only migration; filling it brings the rest.

package disk

/*
#include <stdint.h>
#include <stdlib.h>
#include <rados/librados.h>
#include <rbd/librbd.h>

extern int vmdiskProgress(uint64_t done, uint64_t total, uintptr_t handle);

static int progressed(uint64_t done, uint64_t total, void *arg) {
	return vmdiskProgress(done, total, (uintptr_t)arg);
}

static int migrate(rados_ioctx_t io, const char *name, uintptr_t handle) {
	return rbd_migration_execute_with_progress(io, name, progressed, (void *)handle);
}
*/
import "C"

import (
	"context"
	"encoding/binary"
	"errors"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"

	"github.com/ceph/go-ceph/rados"
	"github.com/ceph/go-ceph/rbd"
)

// Filling is how far a disk is that is read from its origin.
type Filling struct {
	Origin  Origin `json:"origin"`
	Percent int    `json:"percent"`
	Whole   bool   `json:"whole"` // all data is in Ceph; the origin is still named
}

// FillFrom makes n a disk that is read from an origin, of its size and in milliseconds,
// whatever that is. It can be written to, grown and filled at once. A name that is taken
// is [ErrExists].
//
// Similar to: rbd migration prepare --import-only.
func (c *Cluster) FillFrom(ctx context.Context, o Origin, n Name) error {
	spec, err := o.spec()
	if err != nil {
		return err
	}
	return c.pool(ctx, n.Pool, func(io *rados.IOContext) error {
		opts := rbd.NewRbdImageOptions()
		defer opts.Destroy()
		if err := opts.SetUint64(rbd.ImageOptionOrder, imageOrder); err != nil {
			return wrap("create", n.String(), err)
		}
		err := rbd.MigrationPrepareImport(spec, io, n.Image, opts)
		if is(err, ErrExists) {
			return &Error{Op: "create", Object: n.String(), Kind: ErrExists, Err: err}
		}
		return wrap("create", n.String()+" from "+o.Where, err)
	})
}

// Filling says how far a disk is that is being filled; one that is not is
// [ErrNotFilling]. It does not open the image, and needs no origin.
//
// Similar to: rbd status.
func (c *Cluster) Filling(ctx context.Context, n Name) (f Filling, err error) {
	err = c.pool(ctx, n.Pool, func(io *rados.IOContext) error {
		id, h, err := headerOf(io, n)
		if err != nil {
			return err
		}
		var m migration
		if h.migrating() {
			m, err = migrationOf(io, n, id)
		}
		f = Filling{m.origin, m.percent, m.state == executed}
		if err == nil && m.origin.Where == "" {
			err = &Error{Op: "find", Object: n.String(), Kind: ErrNotFound, Err: ErrNotFilling, Reason: "is not being filled"}
		}
		return err
	})
	return f, err
}

// ErrNotFilling is a disk that has no origin, or none any more.
var ErrNotFilling = errors.New("it has no origin")

// The states of a migration that matter here. Source: cls::rbd::MigrationState.
const executed = 4

// migration is what the header of an image says of one.
type migration struct {
	origin  Origin // the zero one if it is none that imports
	state   byte
	percent int
}

// migrationOf reads it from the header of an image that is migrating. The call is
// cls_rbd's migration_get.
func migrationOf(io *rados.IOContext, n Name, id string) (m migration, err error) {
	out, err := exec(io, "rbd_header."+id, "migration_get", nil)
	if err == nil {
		m, err = parseMigration(out)
	}
	return m, wrap("read migration of", n.String(), err)
}

// parseMigration reads a cls::rbd::MigrationSpec of version 3.
func parseMigration(b []byte) (m migration, err error) {
	const start, fixed = 1 + 1 + 4, 1 + 8 // version, length; type, pool
	if len(b) < start+fixed {
		return m, errShortAnswer
	}
	version := b[0]
	b = b[start+fixed:]
	for range 3 { // namespace, name and ID of what is migrated
		if _, b, err = decodeString(b); err != nil {
			return m, err
		}
	}
	if len(b) < 4 || version < 3 {
		return m, errShortAnswer
	}
	skip := 4 + 16*int(binary.LittleEndian.Uint32(b)) + 8 + 1 + 1 // snapshots, overlap, flatten, mirroring
	if len(b) < skip+1 {
		return m, errShortAnswer
	}
	m.state = b[skip]
	told, b, err := decodeString(b[skip+1:])
	if err != nil || len(b) < 1 {
		return m, errors.Join(err, errShortAnswer)
	}
	spec, _, err := decodeString(b[1:])
	if err != nil || spec == "" {
		return m, err
	}
	m.percent, _ = strconv.Atoi(strings.TrimSuffix(told, "% complete"))
	if m.state == executed {
		m.percent = 100
	}
	m.origin, err = originOf(spec)
	return m, err
}

// SameOrigin is [ErrOriginAway] if what a disk is being filled from is not there any
// more, or was changed; what is not being filled needs none.
func (c *Cluster) SameOrigin(ctx context.Context, n Name) error {
	f, err := c.Filling(ctx, n)
	if err != nil || f.Whole {
		return ignore(err, ErrNotFound)
	}
	return f.Origin.same(ctx)
}

// stallTime is how long nothing may come from an origin before it is asked for.
const stallTime = 10 * time.Second

// Fill brings the data of a disk from its origin into Ceph. It blocks for as long as
// that takes; progress, which may be nil, is told objects. The disk may be open and
// written to meanwhile: then whoever has its lock does the work. Run again, it goes on.
// An origin that is away is [ErrOriginAway], a disk that is not being filled
// [ErrNotFound].
//
// librbd cannot be told to stop. If ctx ends first, Fill returns and leaves the call to
// itself, QEMU's or this process's; the disk is as usable as before.
//
// Similar to: rbd migration execute.
func (c *Cluster) Fill(ctx context.Context, n Name, progress func(done, total int64)) error {
	f, err := c.Filling(ctx, n)
	if err != nil || f.Whole {
		return err
	}
	if err := f.Origin.same(ctx); err != nil {
		return err
	}
	moved := make(chan struct{}, 1)
	start := func() <-chan error {
		return c.leave(func() error {
			return c.pool(context.WithoutCancel(ctx), n.Pool, func(io *rados.IOContext) error {
				return withProgress(context.WithoutCancel(ctx), func(done, total int64) {
					select {
					case moved <- struct{}{}:
					default:
					}
					if progress != nil && ctx.Err() == nil {
						progress(done, total)
					}
				}, func(w *watched) error { return w.execute(io, n) })
			})
		})
	}
	done, again := start(), false
	for {
		select {
		case err := <-done:
			if err != nil && c.isWhole(ctx, n) { // one that was left to itself was faster
				return nil
			}
			if is(err, ErrInvalid) && !again { // or is just about to be at its end
				done, again = start(), true
				continue
			}
			if away := f.Origin.same(ctx); err != nil && away != nil {
				return away
			}
			return wrap("fill", n.String(), err)
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-moved:
		case <-time.After(stallTime):
			if err := f.Origin.same(ctx); err != nil && ctx.Err() == nil {
				return err
			}
		}
	}
}

func (c *Cluster) isWhole(ctx context.Context, n Name) bool {
	f, err := c.Filling(ctx, n)
	return err == nil && f.Whole || errors.Is(err, ErrNotFilling)
}

func (w *watched) execute(io *rados.IOContext, n Name) error {
	name := C.CString(n.Image)
	defer C.free(unsafe.Pointer(name))
	if rc := C.migrate(C.rados_ioctx_t(io.Pointer()), name, C.uintptr_t(w.handle)); rc < 0 {
		return syscall.Errno(-rc)
	}
	return nil
}

// PartFromOrigin parts a disk whose data is all in Ceph from its origin. That must be
// as it was when the disk was made; else what of it the disk has is not known, which is
// [ErrOriginAway]. One that is parted is fine.
//
// Similar to: rbd migration commit.
func (c *Cluster) PartFromOrigin(ctx context.Context, n Name) error {
	f, err := c.Filling(ctx, n)
	if err != nil {
		return ignore(err, ErrNotFound)
	}
	if err := f.Origin.same(ctx); err != nil {
		return err
	}
	return c.pool(ctx, n.Pool, func(io *rados.IOContext) error {
		return wrap("part", n.String()+" from "+f.Origin.Where, rbd.MigrationCommit(io, n.Image))
	})
}

// removeFilling removes a disk that is being filled, with whatever snapshots it has. It
// asks for no origin. One that is open is [ErrInUse].
func removeFilling(io *rados.IOContext, n Name, id string) error {
	m, err := migrationOf(io, n, id)
	switch {
	case err == nil && m.origin.Where != "":
		return wrap("remove", n.String(), rbd.MigrationAbort(io, n.Image))
	case err == nil:
		return &Error{Op: "remove", Object: n.String(), Kind: ErrInUse, Reason: "is being migrated; see rbd status " + n.String()}
	case ignore(ignore(err, ErrNotFound), ErrInvalid) != nil:
		return err
	}
	// Its making was cut off between the image and its migration.
	if err := call(io, "rbd_header."+id, "migration_remove"); err != nil {
		return wrap("remove", n.String(), err)
	}
	return wrap("remove", n.String(), rbd.RemoveImage(io, n.Image))
}
