// The image that a machine's files are above: one that holds what a backing file does,
// so that the disk can be its clone and only what is above it need be copied.

package disk

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/ceph/go-ceph/rados"
	"github.com/ceph/go-ceph/rbd"
	"golang.org/x/sync/errgroup"
)

// Basis is an image's protected snapshot with the content of a backing file.
type Basis struct {
	Image Name `json:"-"`
	// Layer is which file of the chain it is, as [Layers] counts: 1 is the first below
	// that which the machine writes.
	Layer int   `json:"layer"`
	Size  int64 `json:"size"` // of the image, in bytes

	id    string // of the image
	state string // of the files when they were read
}

// FindBasis looks in a pool for an image that holds what the machine sees of one of its
// backing files, the first if there is a choice: every byte of both is compared, and the
// file may be longer by zeros, as a base that Nova has grown is. nil is that there is
// none. The machine may run: QEMU only reads these files. If was is what an earlier call
// found, and image and files are still those, nothing is compared again. progress, which
// may be nil, is told bytes of the image that is being compared.
//
// It blocks for as long as it takes to read a file and the image that is like it; images
// that are not differ early. Errors are as of [OpenLocal].
//
// Similar to: qemu-img compare.
func (c *Cluster) FindBasis(ctx context.Context, pool, path string, o LocalOptions, size int64, was *Basis, progress func(done, total int64)) (*Basis, error) {
	src, err := OpenBacking(path, o)
	if err != nil || src == nil {
		return nil, err
	}
	defer src.Close()
	state := src.state()
	if was != nil && was.state == state && c.same(ctx, was) {
		return was, nil
	}
	images, err := c.likely(ctx, pool)
	if err != nil {
		return nil, err
	}
	for layer, s := 1, src; s != nil; layer, s = layer+1, s.below {
		size = min(size, s.size) // a shorter file in between cuts off what is below it
		for _, i := range images {
			if i.Size > size {
				continue
			}
			err := c.compare(ctx, i.Image, s, progress)
			if err == nil {
				return &Basis{Image: i.Image, Layer: layer, Size: i.Size, id: i.id, state: state}, src.unchanged()
			}
			if !errors.Is(err, errDiffers) && !is(err, ErrNotFound) {
				return nil, err
			}
		}
	}
	return nil, nil
}

// OpenBacking opens and judges the files below a machine's disk, which may be in use,
// as [OpenLocal] does; nil is that there are none. The caller closes the Source.
func OpenBacking(path string, o LocalOptions) (*Source, error) {
	top := true
	s, err := openChain(path, o, func(s *Source, so SourceOptions) error {
		if top {
			top = false
			return s.glance(so)
		}
		return s.still(so)
	})
	if err != nil {
		return nil, err
	}
	below := s.below
	if s.below = nil; below != nil {
		below.rate = o.Rate
	}
	return below, s.Close()
}

// state tells one state of a chain of files from another.
func (s *Source) state() string {
	var all strings.Builder
	for ; s != nil; s = s.below {
		fmt.Fprintln(&all, s.path, s.stamp, s.stamp.ctime)
	}
	return all.String()
}

// likely lists the images of a pool that have a snapshot's name to be cloned by, large
// ones first.
func (c *Cluster) likely(ctx context.Context, pool string) ([]Basis, error) {
	names, err := c.imageNames(ctx, pool, func(name string) bool { return !strings.HasSuffix(name, importSuffix) })
	if err != nil {
		return nil, ignore(err, ErrNotFound)
	}
	var all []Basis
	err = c.pool(ctx, pool, func(io *rados.IOContext) error {
		all, err = each(ctx, names, func(name string) (Basis, error) {
			n := Name{Pool: pool, Image: name, Snap: ImageSnapshot}
			id, h, err := headerOf(io, n)
			return Basis{Image: n, Size: h.size, id: id}, err
		})
		return err
	})
	slices.SortStableFunc(all, func(a, b Basis) int { return cmp.Compare(b.Size, a.Size) })
	return all, err
}

// same says whether an image is the one that it was.
func (c *Cluster) same(ctx context.Context, b *Basis) bool {
	err := c.pool(ctx, b.Image.Pool, func(io *rados.IOContext) error {
		id, err := imageID(io, b.Image)
		if err == nil && id != b.id {
			err = errDiffers
		}
		return err
	})
	return err == nil
}

// errDiffers is an image with other content than a file.
var errDiffers = errors.New("content differs")

const (
	// compareWorkers bounds the chunks that are compared at once, and with them how much
	// is read of an image that differs in its first.
	compareWorkers = 4
	compareChunk   = 4 << 20
)

// compare is errDiffers unless a snapshot, protected, holds what s does.
func (c *Cluster) compare(ctx context.Context, n Name, s *Source, progress func(done, total int64)) error {
	return c.fromSnapshot(ctx, n, func(io *rados.IOContext, img *rbd.Image) error {
		protected, err := img.GetSnapshot(n.Snap).IsProtected()
		if err != nil {
			return wrap("read protection of", n.String(), err)
		}
		if !protected {
			return errDiffers
		}
		r, err := openRawSnapshot(io, n)
		if err != nil {
			return wrap("compare", n.String(), err)
		}
		err = r.like(ctx, s, progress)
		return wrap("compare", n.String(), errors.Join(err, r.close()))
	})
}

// like is errDiffers unless an image holds what s does, and s nothing but zeros beyond
// that.
func (r *rawImage) like(ctx context.Context, s *Source, progress func(done, total int64)) error {
	var next, done atomic.Int64
	var telling sync.Mutex
	total := max(s.size, r.size)
	g, ctx := errgroup.WithContext(ctx)
	for range compareWorkers {
		g.Go(func() error {
			file := s.newReader()
			defer file.close()
			mine, theirs := make([]byte, compareChunk), newBuffer(compareChunk)
			defer theirs.free()
			for {
				off := next.Add(compareChunk) - compareChunk
				n := min(compareChunk, total-off)
				if n <= 0 {
					return nil
				}
				if err := ctx.Err(); err != nil {
					return err
				}
				if err := file.all(mine[:n], off); err != nil {
					return err
				}
				clear(theirs.b)
				if part := min(n, r.size-off); part > 0 {
					if err := r.read(theirs, off, []span{{0, part}}); err != nil {
						return err
					}
				}
				if !bytes.Equal(mine[:n], theirs.b[:n]) {
					return errDiffers
				}
				if progress != nil {
					telling.Lock()
					progress(done.Add(n), total)
					telling.Unlock()
				}
			}
		})
	}
	return g.Wait()
}

// all fills p with the source's bytes from off on; those beyond its end are zeros.
func (r *reader) all(p []byte, off int64) error {
	clear(p)
	n := min(int64(len(p)), r.size-off)
	if n <= 0 {
		return nil
	}
	_, err := r.read(p[:n], off)
	return err
}
