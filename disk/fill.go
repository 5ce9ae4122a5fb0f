// Filling a base with a volume's state, and taking back what an interrupted run
// put there.

package disk

import (
	"context"
	"time"

	"github.com/ceph/go-ceph/rados"
	"github.com/ceph/go-ceph/rbd"
)

// Fill says what goes into a backup.
type Fill struct {
	From *Cluster // where the volume is
	Pool string   // of the backups
	// Since is the volume's snapshot that the base is at; "" is an empty base.
	Since string
	// First says of a snapshot of the volume that it had none before it.
	First    func(snapshot string) bool
	Progress func(done, total int64)
}

// FillBackup copies into the base of b what its volume's snapshot has, or has
// changed since another, and stores the checksums of it. It returns how many bytes
// it wrote. What it reads is the changed bytes, rounded to 64 KiB; it looks only
// at objects that changed, as the object maps say, or, after a rollback, at those
// that exist.
//
// Similar to: rbd export-diff piped into rbd import-diff.
func (c *Cluster) FillBackup(ctx context.Context, b Backup, f Fill) (written int64, err error) {
	src := b.VolumeName()
	src.Snap = b.Source
	err = f.From.pool(ctx, src.Pool, func(from *rados.IOContext) error {
		return c.pool(ctx, f.Pool, func(to *rados.IOContext) error {
			s, err := openScan(from, src, f.Since)
			if err != nil {
				return err
			}
			defer s.close()
			if f.Since == "" {
				s.todo, err = wholeDiff(s.diff, src, "", s.unit)
			} else {
				s.todo, err = delta{from, src, f.Since, s.unit, f.First}.changed(ctx, s.diff)
			}
			if err != nil {
				return err
			}
			s.fresh = f.Since == ""
			s.keep = func(page int64, p *sumPage) error { return writeSums(to, b.ID, page, p) }
			s.progress = f.Progress
			base := Name{Pool: f.Pool, Image: b.Base}
			err = fillImage(ctx, s, to, base)
			written = s.written
			return err
		})
	})
	return written, err
}

// fillImage runs a scan that copies into an image, which gets the size of what is
// read.
func fillImage(ctx context.Context, s *scan, to *rados.IOContext, dst Name) (err error) {
	if _, err := resizeTo(to, dst, s.src.size); err != nil {
		return err
	}
	s.to = dst
	if s.dst, err = openRawImage(to, dst.Image); err != nil {
		return wrap("open", dst.String(), err)
	}
	defer func() {
		if e := s.dst.close(); err == nil {
			err = wrap("write", dst.String(), e)
		}
	}()
	return s.run(ctx)
}

// resizeTo makes an image of ours larger or smaller, if it has to be.
func resizeTo(io *rados.IOContext, n Name, size int64) (changed bool, err error) {
	img, err := openImage(io, n, rbd.OpenImage)
	if err != nil {
		return false, err
	}
	defer closeImage(img, time.Now())
	has, err := img.GetSize()
	if err == nil && int64(has) != size {
		changed = true
		err = img.Resize(uint64(size))
	}
	return changed, wrap("resize", n.String(), err)
}

// Rewind makes a base again what it was at a snapshot, in time in proportion to
// what differs, and says whether anything did: an interrupted backup leaves it
// half changed. A base that
// somebody has open, as Cinder while it fills it, is [ErrInUse] after the 35 s in
// which the watch of a dead one would have gone.
//
// Similar to: rbd snap rollback, which copies all of the image.
func (c *Cluster) Rewind(ctx context.Context, base Name, snap string) (changed bool, err error) {
	at := base
	at.Snap = snap
	err = waitUnused(ctx, func() error {
		by, err := c.Watchers(ctx, base)
		if err == nil && len(by) > 0 {
			err = inUse("write to", base, by)
		}
		return err
	})
	if err != nil {
		return false, err
	}
	err = c.pool(ctx, base.Pool, func(io *rados.IOContext) error {
		s, err := openScan(io, at, "")
		if err != nil {
			return err
		}
		defer s.close()
		// What it had behind the end of a head that shrank differs, once it is long
		// enough again.
		if changed, err = resizeTo(io, base, s.src.size); err != nil {
			return err
		}
		head, err := openImage(io, base, rbd.OpenImageReadOnly)
		if err != nil {
			return err
		}
		s.todo, err = wholeDiff(head, base, snap, s.unit)
		head.Close()
		if err != nil || s.todo.count() == 0 {
			return err
		}
		changed = true
		return fillImage(ctx, s, io, base)
	})
	return changed, err
}
