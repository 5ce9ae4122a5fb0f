// Copying an image file into an RBD image: in parallel, without its zeros, and
// with proof.

package disk

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ceph/go-ceph/rados"
	"golang.org/x/sync/errgroup"
)

const (
	// copyWorkers bounds the chunks in flight, and with them memory: each has a
	// buffer of one chunk, and in librbd up to as much again. Each waits for the proof
	// of its chunk, so there are more than an OSD needs to be busy.
	copyWorkers = 12
	// maxChunk bounds a chunk when objects are larger. Fewer, larger or more,
	// smaller ones of the same memory measured slower.
	maxChunk = 4 << 20
	// zeroGrain is the piece that is left out if it is all zeros. Smaller ones
	// make more and smaller writes, which costs more than the zeros do.
	zeroGrain = 64 << 10
)

// copySource writes src into the image name of the pool of ioctx, and proves
// that the cluster holds it. The image is at least as large as src and has never
// been written: zeros are skipped, or, of a clone, what is as in its parent. It is
// opened here, by a handle of its own, and closed again: nobody else may hold its
// exclusive lock meanwhile.
//
// progress, if not nil, is told after every chunk (at most 4 MiB) how many bytes
// of the virtual size are done: never fewer than before, never by two goroutines
// at once.
//
// When ctx ends, the chunks in flight are finished and ctx's error is returned.
// Nothing is undone on failure: what is in the image is then good for nothing.
// An error that wraps ErrBadSource is about the file, one that wraps a
// syscall.Errno comes from the cluster.
//
// Similar to: rbd import and qemu-img convert.
func copySource(ctx context.Context, ioctx *rados.IOContext, name string, src *Source, progress func(done, total int64)) error {
	_, err := copyInto(ctx, ioctx, name, src, progress)
	return err
}

// copyInto is copySource, and returns how many bytes it wrote.
func copyInto(ctx context.Context, ioctx *rados.IOContext, name string, src *Source, progress func(done, total int64)) (sent int64, err error) {
	// A write to a full pool waits for room for ever, unless it is made to fail:
	// with EDQUOT at the pool's quota, ENOSPC when the cluster is full. The flag
	// stays on ioctx.
	if err := ioctx.SetPoolFullTry(); err != nil {
		return 0, err
	}
	dst, err := openBlank(ioctx, name)
	if err != nil {
		return 0, err
	}
	defer func() {
		if e := dst.close(); err == nil {
			err = e
		}
	}()
	if dst.size < src.size {
		return 0, fmt.Errorf("image %s has %d bytes, the source %d", name, dst.size, src.size)
	}
	if dst.striped {
		return 0, fmt.Errorf("image %s is striped", name)
	}
	c := &copier{src: src, dst: dst, chunk: min(dst.chunk, maxChunk), pace: pace{rate: src.rate}, progress: progress}
	if err := c.run(ctx); err != nil {
		return 0, err
	}
	if err := dst.finish(); err != nil {
		return 0, err
	}
	return c.sent.Load(), src.unchanged()
}

type copier struct {
	src   *Source
	dst   *blank
	chunk int64
	pace  pace
	sent  atomic.Int64 // bytes that were written

	mu       sync.Mutex
	done     int64
	progress func(done, total int64)
}

func (c *copier) run(ctx context.Context) error {
	g, gctx := errgroup.WithContext(ctx)
	chunks := make(chan int64)
	g.Go(func() error {
		defer close(chunks)
		return c.deal(gctx, chunks)
	})
	for range copyWorkers {
		g.Go(func() error {
			w := &copyWorker{copier: c, r: c.src.newReader()}
			if c.src.basis != nil {
				w.basis = c.src.basis.newReader()
			}
			defer w.close()
			return w.run(gctx, chunks)
		})
	}
	if err := g.Wait(); err != nil {
		// The caller's reason to stop, if it had one, and not our own.
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return err
	}
	return nil
}

// deal hands out the offsets of the chunks that may hold data.
func (c *copier) deal(ctx context.Context, chunks chan<- int64) error {
	for off := int64(0); off < c.src.size; {
		next, err := c.src.nextData(off)
		if err != nil {
			return c.src.refuse("find data: %w", err)
		}
		if next < c.src.size {
			next -= next % c.chunk
		}
		c.report(next - off)
		if next >= c.src.size {
			return nil
		}
		if c.src.basis != nil {
			touched, err := c.src.touched(next, min(c.chunk, c.src.size-next))
			if err != nil {
				return err
			}
			if !touched {
				off = min(next+c.chunk, c.src.size)
				c.report(off - next)
				continue
			}
		}
		if err := c.pace.wait(ctx, c.chunk); err != nil {
			return err
		}
		select {
		case chunks <- next:
		case <-ctx.Done():
			return ctx.Err()
		}
		off = next + c.chunk
	}
	return nil
}

// pace holds a copy to so many bytes a second; 0 is as fast as it can.
type pace struct {
	rate int64
	next time.Time // when the next chunk may be read
}

func (p *pace) wait(ctx context.Context, n int64) error {
	if p.rate == 0 {
		return nil
	}
	now := time.Now()
	early := p.next.Sub(now)
	if early < 0 {
		p.next = now
	}
	p.next = p.next.Add(time.Duration(float64(n) / float64(p.rate) * float64(time.Second)))
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(max(early, 0)):
		return nil
	}
}

func (c *copier) report(n int64) {
	if n <= 0 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.done += n
	if c.progress != nil {
		c.progress(c.done, c.src.size)
	}
}

// copyWorker copies one chunk at a time.
type copyWorker struct {
	*copier
	r      *reader
	buf    buffer
	pieces []span
	basis  *reader // nil: the image is no clone
	was    []byte  // what that has of the chunk
}

func (w *copyWorker) close() {
	w.r.close()
	if w.basis != nil {
		w.basis.close()
	}
	if w.buf.p != nil {
		w.buf.free()
	}
}

func (w *copyWorker) run(ctx context.Context, chunks <-chan int64) error {
	for off := range chunks {
		if err := ctx.Err(); err != nil {
			return err
		}
		n := min(w.chunk, w.src.size-off)
		if err := w.copy(off, n); err != nil {
			return err
		}
		w.report(n)
	}
	return nil
}

// copy reads and writes the chunk at off.
func (w *copyWorker) copy(off, n int64) error {
	if w.buf.p == nil {
		w.buf = newBuffer(w.chunk)
	}
	if err := w.find(off, n); err != nil {
		return err
	}
	if len(w.pieces) == 0 {
		return nil
	}
	if err := w.dst.write(w.buf, off, w.pieces); err != nil {
		return err
	}
	for _, s := range w.pieces {
		w.sent.Add(s.n)
	}
	return nil
}
