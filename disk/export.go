// Copying an image out of Ceph: read in parallel, written in order, without its
// zeros.

package disk

import (
	"context"
	"crypto/md5"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"slices"
	"sync"

	"github.com/ceph/go-ceph/rbd"
	"golang.org/x/sync/errgroup"
)

// ExportOptions say what is done besides copying.
type ExportOptions struct {
	// Checksum is "md5", "sha256" or "sha512" of all of the image's bytes, or "" for
	// none. What Glance calls os_hash_value of a raw image is its sha512.
	Checksum string
	// Progress, if not nil, is told bytes of the virtual size.
	Progress func(done, total int64)
}

var checksums = map[string]func() hash.Hash{"md5": md5.New, "sha256": sha256.New, "sha512": sha512.New}

// Export copies an image, or a snapshot of one, to a file in the making, and
// returns the checksum that was asked for. It blocks for as long as that takes and
// uses 32 MiB of memory whatever the size. A file system that is full is
// [ErrNoSpace]. BlueStore checks each block that is read, and the messenger what
// comes over the wire.
//
// Similar to: rbd export and qemu-img convert.
func (c *Cluster) Export(ctx context.Context, n Name, t *Target, o ExportOptions) (sum string, err error) {
	return c.export(ctx, n, o, func(size int64) (layout, error) {
		l, err := t.layout(size)
		return l, t.fail("write", err)
	}, func(err error) error { return t.fail("write", err) })
}

// ExportTo copies an image, or a snapshot of one, to w, every byte of it.
//
// Similar to: rbd export IMAGE -.
func (c *Cluster) ExportTo(ctx context.Context, n Name, w io.Writer, o ExportOptions) (sum string, err error) {
	return c.export(ctx, n, o, func(size int64) (layout, error) {
		return &stream{w: w, size: size}, nil
	}, func(err error) error { return wrap("write", "image "+n.String(), err) })
}

// export copies to the layout that begin makes; what that fails with is told by
// failed.
func (c *Cluster) export(ctx context.Context, n Name, o ExportOptions,
	begin func(size int64) (layout, error), failed func(error) error) (sum string, err error) {
	newSum, ok := checksums[o.Checksum]
	if !ok && o.Checksum != "" {
		return "", invalid("checksum "+o.Checksum, "is none of md5, sha256, sha512")
	}
	err = c.view(ctx, n, func(img *rbd.Image) error {
		size, err := img.GetSize()
		if err != nil {
			return wrap("read size of", n.String(), err)
		}
		to, err := begin(int64(size))
		if err != nil {
			return err
		}
		if newSum != nil {
			h := newSum()
			to = layouts{to, &stream{w: h, size: int64(size)}}
			defer func() { sum = hex.EncodeToString(h.Sum(nil)) }()
		}
		e := &exporter{img: img, name: n, size: int64(size), progress: o.Progress}
		if err := e.run(ctx, func(p []byte, off int64) error { return failed(to.write(p, off)) }); err != nil {
			return err
		}
		return failed(to.end())
	})
	if err != nil {
		sum = ""
	}
	return sum, err
}

type exporter struct {
	img      *rbd.Image
	name     Name
	size     int64
	progress func(done, total int64)
	reading  sync.WaitGroup
}

// piece is a chunk that is being read.
type piece struct {
	off  int64
	p    []byte
	done chan error
}

// run reads what may hold data and hands it to write, from the first byte to the
// last, by one goroutine.
func (e *exporter) run(ctx context.Context, write func(p []byte, off int64) error) error {
	data, err := dataSpans(e.img, e.name, e.size)
	if err != nil {
		return err
	}
	defer e.reading.Wait() // a read cannot be interrupted, and needs the image open
	g, gctx := errgroup.WithContext(ctx)
	pieces := make(chan piece, copyWorkers)
	free := make(chan []byte, copyWorkers)
	for range copyWorkers {
		free <- nil
	}
	g.Go(func() error {
		defer close(pieces)
		return e.deal(gctx, data, free, pieces)
	})
	g.Go(func() error {
		for p := range pieces {
			if err := errors.Join(<-p.done, gctx.Err()); err != nil {
				return err
			}
			if err := write(p.p, p.off); err != nil {
				return err
			}
			e.report(p.off + int64(len(p.p)))
			free <- p.p[:maxChunk]
		}
		return nil
	})
	if err := g.Wait(); err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return err
	}
	e.report(e.size)
	return nil
}

// deal starts reading chunks, in order, as many at once as there are buffers.
func (e *exporter) deal(ctx context.Context, data []span, free chan []byte, pieces chan<- piece) error {
	for _, s := range data {
		for off := s.off; off < s.off+s.n; off += maxChunk {
			var buf []byte
			select {
			case buf = <-free:
			case <-ctx.Done():
				return ctx.Err()
			}
			if buf == nil {
				buf = make([]byte, maxChunk)
			}
			p := piece{off: off, p: buf[:min(maxChunk, s.off+s.n-off)], done: make(chan error, 1)}
			e.reading.Go(func() { p.done <- e.read(p) })
			pieces <- p // there is room for as many as there are buffers
		}
	}
	return nil
}

func (e *exporter) read(p piece) error {
	n, err := e.img.ReadAt(p.p, p.off)
	if err == nil && n < len(p.p) || errors.Is(err, io.EOF) {
		err = fmt.Errorf("%d of %d bytes at %d: %w", n, len(p.p), p.off, io.ErrUnexpectedEOF)
	}
	return wrap("read", e.name.String(), err)
}

func (e *exporter) report(done int64) {
	if e.progress != nil {
		e.progress(done, e.size)
	}
}

// dataSpans are the parts of an image, those of its parents included, that may hold
// anything but zeros: sorted, apart, and beginning at multiples of zeroGrain. They are
// asked for to the byte and not by whole objects, which would be read with their holes.
func dataSpans(img *rbd.Image, n Name, size int64) ([]span, error) {
	var found []span
	err := img.DiffIterate(rbd.DiffIterateConfig{
		Length:        uint64(size),
		IncludeParent: rbd.IncludeParent,
		Callback: func(off, length uint64, exists int, _ interface{}) int {
			if exists != 0 {
				begin := int64(off) / zeroGrain * zeroGrain
				found = append(found, span{begin, int64(off+length) - begin})
			}
			return 0
		},
	})
	if err != nil {
		return nil, wrap("find the data of", n.String(), err)
	}
	slices.SortFunc(found, func(a, b span) int { return int(min(max(a.off-b.off, -1), 1)) })
	merged := found[:0]
	for _, s := range found {
		end := min(clustersFor(s.off+s.n, zeroGrain)*zeroGrain, size)
		if k := len(merged); k > 0 && s.off <= merged[k-1].off+merged[k-1].n {
			merged[k-1].n = max(merged[k-1].n, end-merged[k-1].off)
			continue
		}
		merged = append(merged, span{s.off, end - s.off})
	}
	return merged, nil
}
