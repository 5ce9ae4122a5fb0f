// Opening and closing images. In the thread in which an image's opening ends, librbd 16.2
// still uses the image after it has said so; the image may be closed and freed by then, and
// the process dies ("terminate called … std::system_error: Invalid argument", or an
// assertion of glibc's about a mutex or a futex). So nothing is opened that is not known to
// be there, and nothing is closed as soon as it is open. librados_thread_count=1 would keep
// the order, but unprotecting a snapshot may wait, in that one thread, for another.
// Source: librbd, ImageState::complete_action_unlock; operation/SnapshotUnprotectRequest,
// which calls wait_for_latest_osdmap.

package disk

import (
	"context"
	"time"

	"github.com/ceph/go-ceph/rados"
	"github.com/ceph/go-ceph/rbd"
)

// opener is rbd.OpenImage or one of its kind.
type opener func(io *rados.IOContext, name, snap string) (*rbd.Image, error)

// openImage opens an image, or its snapshot, for the caller to close. One that is
// not there is [ErrNotFound].
func openImage(io *rados.IOContext, n Name, open opener) (*rbd.Image, error) {
	if err := openable(io, n); err != nil {
		return nil, err
	}
	img, err := open(io, n.Image, rbd.NoSnapshot)
	if err != nil {
		return nil, wrap("open", n.String(), err)
	}
	return img, toSnapshot(img, n)
}

// An image that others see is kept open for settleTime at least, far longer than a thread
// of ours waits for a processor; one that is only read stays open for idleTime, since that
// costs nobody anything.
const (
	settleTime = 20 * time.Millisecond
	idleTime   = time.Second
)

// closeImage closes an image that was opened at a time. What close says is that something
// could not be given back, which the OSDs do by themselves after a while.
func closeImage(img *rbd.Image, opened time.Time) {
	settle(opened)
	_ = img.Close()
}

func settle(opened time.Time) { time.Sleep(time.Until(opened.Add(settleTime))) }

// closeLater closes an image that was only read, and does not wait for that.
func (c *Cluster) closeLater(img *rbd.Image) {
	c.leave(func() error {
		time.Sleep(idleTime)
		return img.Close()
	})
}

// openTrashed opens what is in the trash by its id, for the caller to close.
func openTrashed(io *rados.IOContext, n Name, id string, open opener) (*rbd.Image, error) {
	called := n.String() + " (in the trash)"
	there, err := hasHeader(io, id, noSnap)
	if err == nil && !there {
		err = rados.ErrNotFound
	}
	if err != nil {
		return nil, wrap("open", called, err)
	}
	img, err := open(io, id, rbd.NoSnapshot)
	if err != nil {
		return nil, wrap("open", called, err)
	}
	return img, toSnapshot(img, n)
}

// toSnapshot has an image show its snapshot, if n names one, or closes it.
func toSnapshot(img *rbd.Image, n Name) error {
	if n.Snap == "" {
		return nil
	}
	err := wrap("open", n.String(), img.SetSnapshot(n.Snap))
	if err != nil {
		closeImage(img, time.Now())
	}
	return err
}

// openable is [ErrNotFound] as present is, and [ErrOriginAway] if the image is read from
// an origin that is not there: librbd opens that, too.
func openable(io *rados.IOContext, n Name) error {
	id, h, err := headerOf(io, n)
	if err != nil {
		return translate("open", n.String(), err)
	}
	if !h.migrating() {
		return nil
	}
	m, err := migrationOf(io, n, id)
	if err != nil || m.origin.Where == "" {
		return err
	}
	return m.origin.same(context.Background())
}

// present is [ErrNotFound] if there is no image of that name, or nothing behind it.
func present(io *rados.IOContext, n Name) error {
	if _, _, err := headerOf(io, n); err != nil {
		return translate("open", n.String(), err)
	}
	return nil
}
