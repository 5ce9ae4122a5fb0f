// Images: what disks are cloned from, laid out as Glance's RBD store does.

package disk

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/ceph/go-ceph/rados"
	"github.com/ceph/go-ceph/rbd"
)

const (
	// imageOrder makes 8 MiB objects. Source: glance_store, rbd_store_chunk_size.
	imageOrder = 23

	// importSuffix marks an image whose import has not ended. It gets its name
	// when it is whole and its snapshot protected, so nobody sees a half one.
	importSuffix = ".importing"
)

// Image is an image that disks are cloned from.
type Image struct {
	ID        string `json:"id"`
	Pool      string `json:"pool"`
	Size      int64  `json:"size"`     // bytes
	Used      int64  `json:"used"`     // bytes that its objects may take up at most
	Snapshot  string `json:"snapshot"` // "snap", or "" where there is none
	Protected bool   `json:"protected"`
	URL       string `json:"url"` // rbd://FSID/POOL/ID/SNAP, Glance's location
	// Format is "raw", or what the first bytes say: "qcow2", "vmdk" …: a file that
	// was stored as it was, from which no machine boots.
	Format string `json:"format"`
}

// Name is the image with its snapshot.
func (i Image) Name() Name { return Name{Pool: i.Pool, Image: i.ID, Snap: i.Snapshot} }

// ImageURL is the location by which Glance and Nova know an image; its parts are
// URL-quoted. Source: glance_store, StoreLocation.get_uri.
func (c *Cluster) ImageURL(n Name) string {
	return fmt.Sprintf("rbd://%s/%s/%s/%s", quote(c.fsid), quote(n.Pool), quote(n.Image), quote(n.Snap))
}

// quote is Python's urllib.parse.quote(s, ""): all but letters, digits and _.-~
// is escaped, a space as %20.
func quote(s string) string { return strings.ReplaceAll(url.QueryEscape(s), "+", "%20") }

// createImage makes an empty image of size bytes with objects of 2^order bytes.
func createImage(io *rados.IOContext, n Name, size int64, order uint64) error {
	opts := rbd.NewRbdImageOptions()
	defer opts.Destroy()
	if err := opts.SetUint64(rbd.ImageOptionOrder, order); err != nil {
		return wrap("create", n.String(), err)
	}
	return wrap("create", n.String(), rbd.CreateImage(io, n.Image, uint64(size), opts))
}

// Image describes one image.
func (c *Cluster) Image(ctx context.Context, n Name) (Image, error) {
	n.Snap = ""
	var image Image
	err := c.view(ctx, n, func(img *rbd.Image) (err error) {
		image, err = c.describeImage(img, n)
		return err
	})
	return image, err
}

func (c *Cluster) describeImage(img *rbd.Image, n Name) (Image, error) {
	size, err := img.GetSize()
	if err != nil {
		return Image{}, wrap("read size of", n.String(), err)
	}
	image := Image{ID: n.Image, Pool: n.Pool, Size: int64(size)}
	names, err := snapshots(img, n)
	if err != nil {
		return Image{}, err
	}
	if slices.Contains(names, ImageSnapshot) {
		image.Snapshot = ImageSnapshot
		if image.Protected, err = img.GetSnapshot(ImageSnapshot).IsProtected(); err != nil {
			return Image{}, wrap("read protection of", n.String(), err)
		}
	}
	n.Snap = ImageSnapshot
	image.URL = c.ImageURL(n)
	format, err := readMagic(img, n)
	if err != nil {
		return Image{}, err
	}
	image.Format = format.formatName()
	image.Used, err = used(img, n)
	return image, err
}

// used is how many bytes an image's own objects may take up. With the fast-diff
// feature this reads the object map and not the objects.
func used(img *rbd.Image, n Name) (int64, error) {
	size, err := img.GetSize()
	if err != nil {
		return 0, wrap("read size of", n.String(), err)
	}
	var total int64
	err = img.DiffIterate(rbd.DiffIterateConfig{
		Length:        size,
		IncludeParent: rbd.ExcludeParent,
		WholeObject:   rbd.EnableWholeObject,
		Callback: func(_, length uint64, exists int, _ interface{}) int {
			if exists != 0 {
				total += int64(length)
			}
			return 0
		},
	})
	return total, wrap("read usage of", n.String(), err)
}

// Images describes every image of a pool, by name; imports that have not ended
// are left out.
//
// Similar to: rbd ls -l.
func (c *Cluster) Images(ctx context.Context, pool string) ([]Image, error) {
	names, err := c.imageNames(ctx, pool, func(name string) bool {
		return !strings.HasSuffix(name, importSuffix)
	})
	if err != nil {
		return nil, err
	}
	return each(ctx, names, func(name string) (Image, error) {
		return c.Image(ctx, Name{Pool: pool, Image: name})
	})
}

// RemoveImage removes an image in Glance's order: unprotect, remove the
// snapshot, remove the image. It changes nothing where it cannot finish: an
// image with clones is [ErrHasClones], with snapshots of others
// [ErrHasSnapshots], one that is open [ErrInUse]; each names them. Running it
// again after it was interrupted finishes it.
//
// Similar to: rbd snap unprotect, rbd snap rm, rbd rm.
func (c *Cluster) RemoveImage(ctx context.Context, n Name) error {
	n.Snap = ""
	if err := ignore(c.DropImageSnapshot(ctx, n), ErrNotFound); err != nil {
		return err
	}
	return c.remove(ctx, n)
}

// ImageRemovable says who is in the way of [Cluster.RemoveImage].
func (c *Cluster) ImageRemovable(ctx context.Context, n Name) error {
	n.Snap = ""
	err := c.removable(ctx, n, ImageSnapshot)
	if is(err, ErrNotFound) {
		if half, halfErr := c.hasNames(ctx, n); half || halfErr != nil {
			return halfErr
		}
	}
	return err
}

// DropImageSnapshot is the first half of [Cluster.RemoveImage]: nobody can clone the
// image any more.
func (c *Cluster) DropImageSnapshot(ctx context.Context, n Name) error {
	n.Snap = ""
	if err := c.removable(ctx, n, ImageSnapshot); err != nil {
		return err
	}
	if cut, err := c.cutShort(ctx, n); err != nil || cut {
		return err // before it had a snapshot
	}
	return c.edit(ctx, n, func(img *rbd.Image) error { return dropSnapshot(img, n, ImageSnapshot) })
}

// dropSnapshot unprotects and removes a snapshot; one that is not there is fine.
func dropSnapshot(img *rbd.Image, n Name, name string) error {
	names, err := snapshots(img, n)
	if err != nil || !slices.Contains(names, name) {
		return err
	}
	n.Snap = name
	snap := img.GetSnapshot(name)
	protected, err := snap.IsProtected()
	if err != nil {
		return wrap("read protection of", n.String(), err)
	}
	if protected {
		if err := snap.Unprotect(); err != nil {
			return wrap("unprotect", n.String(), err)
		}
	}
	err = snap.Remove()
	if err != nil && protected {
		err = errors.Join(err, snap.Protect())
	}
	return wrap("remove", n.String(), err)
}

// TrashImage moves an image, with its snapshots, into the trash. One that is open is
// [ErrInUse], one with clones [ErrHasClones]; each names them.
//
// Similar to: rbd trash mv --expires-at.
func (c *Cluster) TrashImage(ctx context.Context, n Name, keep time.Duration) error {
	if err := c.ImageTrashable(ctx, n); err != nil {
		return err
	}
	return c.MoveToTrash(ctx, n, keep)
}

// ImageTrashable says who is in the way of [Cluster.TrashImage].
func (c *Cluster) ImageTrashable(ctx context.Context, n Name) error {
	n.Snap = ""
	return ignore(c.removable(ctx, n, ImageSnapshot), ErrHasSnapshots)
}
