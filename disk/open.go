// Opening images. Nothing is opened that is not known to be there: librbd 16.2 ends
// the process, now and then, when an open fails ("terminate called …
// std::system_error: Invalid argument").

package disk

import (
	"context"

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
		img.Close()
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
