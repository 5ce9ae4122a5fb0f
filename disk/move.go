// Moving a disk to another pool, or another cluster, while nobody writes it: a copy of all that it holds,
// verified. librbd's own migration is not used: killed while it prepares, it can leave
// the source in the trash beside a target that opens, and refuse to abort that (16.2).

package disk

import (
	"context"
	"maps"
	"strings"
	"time"

	"github.com/ceph/go-ceph/rados"
	"github.com/ceph/go-ceph/rbd"
)

// Movable refuses an image that cannot be moved by copying it: one with clones is
// [ErrHasClones], with snapshots [ErrHasSnapshots]; one that is mirrored, or made to be
// written by several at once, [ErrInvalid]. Else it says how many bytes a copy takes at
// most, those that it shares with its parent included.
func (c *Cluster) Movable(ctx context.Context, n Name) (data int64, err error) {
	err = c.view(ctx, n, func(img *rbd.Image) error {
		if err := judge(img, n, "", nil); err != nil {
			return err
		}
		features, err := img.GetFeatures()
		switch {
		case err != nil:
			return wrap("inspect", n.String(), err)
		case features&rbd.FeatureJournaling != 0:
			return invalid(n.String(), "is journaled, as mirroring needs it; its copy would not be")
		case features&rbd.FeatureExclusiveLock == 0:
			return invalid(n.String(), "has no exclusive lock, as what several machines write at once; its copy would have one")
		}
		found, err := wholeDiff(img, n, "", minUnit)
		if err != nil {
			return err
		}
		size, err := img.GetSize()
		data = min(found.count()*minUnit, int64(size))
		return wrap("read size of", n.String(), err)
	})
	return data, err
}

// CopySettings gives an image, which may be in another cluster, the metadata of another, as
// what QEMU's librbd is to do with it. vmdisk's own is about that image and stays behind.
//
// Similar to: rbd image-meta list and set.
func (c *Cluster) CopySettings(ctx context.Context, from Name, into *Cluster, to Name) error {
	var settings map[string]string
	err := c.view(ctx, from, func(img *rbd.Image) (err error) {
		settings, err = img.ListMetadata()
		return wrap("read metadata of", from.String(), err)
	})
	maps.DeleteFunc(settings, func(key, _ string) bool { return strings.HasPrefix(key, "vmdisk") })
	if err != nil || len(settings) == 0 {
		return err
	}
	return into.edit(ctx, to, func(img *rbd.Image) error {
		for key, value := range settings {
			if err := img.SetMetadata(key, value); err != nil {
				return wrap("write metadata of", to.String(), err)
			}
		}
		return nil
	})
}

// Hold keeps an image from being written by anybody until release is called: whoever
// opens it meanwhile gets an error when they write. Whoever has it open is [ErrInUse].
//
// Similar to: rbd_lock_acquire with RBD_LOCK_MODE_EXCLUSIVE.
func (c *Cluster) Hold(ctx context.Context, n Name) (release func(), err error) {
	by, err := c.Watchers(ctx, n)
	if err == nil && len(by) > 0 {
		err = inUse("hold", n, by)
	}
	if err != nil {
		return nil, err
	}
	io, err := c.openPool(n.Pool)
	if err != nil {
		return nil, err
	}
	img, err := openImage(io, n, rbd.OpenImage)
	if err != nil {
		io.Destroy()
		return nil, err
	}
	opened := time.Now()
	release = func() {
		closeImage(img, opened) // which gives the lock back
		io.Destroy()
	}
	if err := img.LockAcquire(rbd.LockModeExclusive); err != nil {
		release()
		return nil, wrap("hold", n.String(), err)
	}
	return release, nil
}

// CopyDisk copies what an image holds, and what it shares with its parent, into one that
// is as large and empty, maybe in another cluster, and verifies what Ceph has of it. Rate is in bytes a second; 0
// is no limit. Nobody may write either meanwhile. It blocks for as long as that takes;
// progress, which may be nil, is told bytes.
//
// Similar to: rbd cp.
func (c *Cluster) CopyDisk(ctx context.Context, from Name, into *Cluster, to Name, rate int64, progress func(done, total int64)) error {
	return c.pool(ctx, from.Pool, func(src *rados.IOContext) error {
		return into.pool(ctx, to.Pool, func(dst *rados.IOContext) error {
			s, err := openScan(src, from, "")
			if err != nil {
				return err
			}
			defer s.close()
			if s.todo, err = wholeDiff(s.diff, from, "", s.unit); err != nil {
				return err
			}
			s.fresh, s.proven, s.pace, s.progress = true, true, pace{rate: rate}, progress
			return fillImage(ctx, s, dst, to)
		})
	})
}
