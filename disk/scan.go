// Going over the content of a snapshot, or over what changed in it: copied to
// another image, summed, compared with sums, or all of that at once. In parallel,
// and with memory that does not depend on the size.

package disk

import (
	"bytes"
	"context"
	"fmt"
	"sync"

	"github.com/ceph/go-ceph/rados"
	"github.com/ceph/go-ceph/rbd"
	"golang.org/x/sync/errgroup"
)

// Damage is a block that is not what it was.
type Damage struct {
	Offset int64  `json:"offset"` // in the volume, in bytes
	Length int64  `json:"length"`
	Sum    uint32 `json:"checksum"` // the CRC32C that it has
	Want   uint32 `json:"want"`     // and that it had
}

// scanWorkers bounds the units in flight, and with them memory: each has a buffer of
// 4 MiB, and in librbd as much again while it reads.
const scanWorkers = 6

// maxDamage is how many blocks are named one by one.
const maxDamage = 1000

// scan is one run over a snapshot. Set its fields, then run.
type scan struct {
	name Name       // what is read, for errors
	src  *rawImage  // it, open
	diff *rbd.Image // where changes are looked for: the same, or what it differs to
	from string     // since this snapshot; "" is all there is
	unit int64
	todo units // the units that are looked at

	dst   *rawImage // where it is copied to; nil is nowhere
	to    Name      // the same, for errors
	fresh bool      // dst was never written: zeros need not be
	// proven has the OSDs prove what they hold of dst, whose objects are of 4 MiB.
	proven bool
	pace   pace // at which units are read

	keep     func(page int64, p *sumPage) error // gets the sums of each page
	want     func(page int64) (*sumPage, error) // the sums that a page must have; nil is any
	all      bool                               // what want does not have must be zeros
	bad      func(Damage) error                 // told of each that differs
	progress func(done, total int64)

	mu       sync.Mutex
	done     int64
	total    int64
	written  int64
	compared int64
}

// openScan opens what is read, twice: go-ceph knows diffs, the bare handle reads in
// parallel. The caller closes the scan.
func openScan(io *rados.IOContext, n Name, from string) (*scan, error) {
	src, err := openRawSnapshot(io, n)
	if err != nil {
		return nil, wrap("open", n.String(), err)
	}
	img, err := openImage(io, n, rbd.OpenImageReadOnly)
	if err != nil {
		_ = src.close()
		return nil, err
	}
	return &scan{name: n, src: src, diff: img, from: from, unit: max(minUnit, src.chunk)}, nil
}

func (s *scan) close() {
	s.diff.Close()
	_ = s.src.close() // nothing was written to it
}

// run goes over the pages in order, and over the units of each in parallel.
func (s *scan) run(ctx context.Context) error {
	s.total = s.todo.count() * s.unit
	for page := range pagesOf(s.src.size) {
		if err := s.page(ctx, page); err != nil {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			return wrap("read", s.name.String(), err)
		}
	}
	return nil
}

func (s *scan) page(ctx context.Context, page int64) error {
	var want *sumPage
	if s.want != nil {
		var err error
		if want, err = s.want(page); err != nil {
			return err
		}
	}
	numbers := s.unitsOf(page, want)
	if len(numbers) == 0 {
		return nil
	}
	sums := new(sumPage)
	group, ctx := errgroup.WithContext(ctx)
	next := make(chan int64)
	group.Go(func() error {
		defer close(next)
		for _, n := range numbers {
			if err := s.pace.wait(ctx, s.unit); err != nil {
				return err
			}
			select {
			case next <- n:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		return nil
	})
	for range min(scanWorkers, len(numbers)) {
		group.Go(func() error {
			w := &scanner{scan: s, sums: sums, want: want, buf: newBuffer(minUnit)}
			defer w.buf.free()
			for n := range next {
				if err := ctx.Err(); err != nil {
					return err
				}
				if err := w.do(n * s.unit); err != nil {
					return err
				}
				s.report(s.unit)
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil || s.keep == nil {
		return err
	}
	return s.keep(page, sums)
}

// unitsOf are the units of a page that are looked at: those asked for and, if sums
// are compared, those that must hold something.
func (s *scan) unitsOf(page int64, want *sumPage) []int64 {
	grains := s.unit / sumGrain
	holds := func(first int64) bool {
		for g := first; want != nil && g < first+grains; g++ {
			if crc, ok := want.get(g); ok && crc != 0 {
				return true
			}
		}
		return false
	}
	var numbers []int64
	first := page * pageSpan / s.unit
	for n := first; n < first+pageSpan/s.unit && n*s.unit < s.src.size; n++ {
		if s.todo.has(n) || holds((n-first)*grains) {
			numbers = append(numbers, n)
		}
	}
	return numbers
}

func (s *scan) report(n int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.done += n
	if s.progress != nil {
		s.progress(s.done, s.total)
	}
}

// scanner does one unit at a time.
type scanner struct {
	*scan
	sums   *sumPage
	want   *sumPage
	buf    buffer
	grains []span // to read: changed, rounded to whole grains
	writes []span
	zeros  []span
}

// do handles the unit at off, by pieces that fit the buffer.
func (w *scanner) do(off int64) error {
	length := min(w.unit, w.src.size-off)
	found := []span{{0, length}}
	if w.from != "" {
		var err error
		if found, err = exactDiff(w.diff, w.name, w.from, off, length); err != nil {
			return err
		}
	}
	for at := int64(0); at < length; at += minUnit {
		if err := w.piece(off+at, min(minUnit, length-at), clip(found, at, minUnit)); err != nil {
			return err
		}
	}
	return nil
}

// clip is the part of sorted spans that lies in [off, off+n), relative to off.
func clip(spans []span, off, n int64) []span {
	var part []span
	for _, s := range spans {
		from, to := max(s.off, off), min(s.off+s.n, off+n)
		if from < to {
			part = append(part, span{from - off, to - from})
		}
	}
	return part
}

// piece handles length bytes at base, of which those in found count.
func (w *scanner) piece(base, length int64, found []span) error {
	w.grains = w.grains[:0]
	for _, s := range found {
		from := s.off / sumGrain * sumGrain
		to := min((s.off+s.n+sumGrain-1)/sumGrain*sumGrain, length)
		if k := len(w.grains); k > 0 && w.grains[k-1].off+w.grains[k-1].n >= from {
			w.grains[k-1].n = max(w.grains[k-1].n, to-w.grains[k-1].off)
			continue
		}
		w.grains = append(w.grains, span{from, to - from})
	}
	if err := w.src.read(w.buf, base, w.grains); err != nil {
		return err
	}
	w.writes, w.zeros = w.writes[:0], w.zeros[:0]
	for _, s := range w.grains {
		for at := s.off; at < s.off+s.n; at += sumGrain {
			if err := w.grain(base, span{at, min(sumGrain, s.off+s.n-at)}, found); err != nil {
				return err
			}
		}
	}
	return w.copy(base)
}

// grain sums one grain and sorts what of it is to be copied.
func (w *scanner) grain(base int64, g span, found []span) error {
	data := w.buf.b[g.off : g.off+g.n]
	blank := bytes.Equal(data, zeros[:g.n])
	var crc uint32
	if !blank {
		crc = zeroCRC(0, data)
		if g.n < sumGrain { // the end of the image: summed as if zeros followed
			crc = zeroCRC(crc, zeros[g.n:])
		}
	}
	number := (base + g.off) % pageSpan / sumGrain
	if !blank || w.from != "" {
		w.sums.set(number, crc)
	}
	if err := w.compare(base+g.off, g.n, number, crc); err != nil || w.dst == nil {
		return err
	}
	to := &w.writes
	if blank {
		if w.fresh {
			return nil
		}
		to = &w.zeros
	}
	for _, s := range clip(found, g.off, g.n) {
		s.off += g.off
		if k := len(*to); k > 0 && (*to)[k-1].off+(*to)[k-1].n == s.off {
			(*to)[k-1].n += s.n
			continue
		}
		*to = append(*to, s)
	}
	return nil
}

func (w *scanner) compare(off, n, number int64, crc uint32) error {
	if w.want == nil {
		return nil
	}
	want, known := w.want.get(number)
	if !known && !w.all {
		return nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.compared++
	if crc == want {
		return nil
	}
	return w.bad(Damage{Offset: off, Length: n, Sum: crc, Want: want})
}

func (w *scanner) copy(base int64) error {
	if w.dst == nil {
		return nil
	}
	if err := w.dst.write(w.buf, base, w.writes); err != nil {
		return wrap("write", w.to.String(), err)
	}
	if err := w.dst.zero(base, w.zeros); err != nil {
		return wrap("write", w.to.String(), err)
	}
	if err := w.prove(base); err != nil {
		return wrap("write", w.to.String(), err)
	}
	var n int64
	for _, s := range w.writes {
		n += s.n
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.written += n
	return nil
}

// prove has the OSDs prove what was just written, if that is asked for. What they are
// to hold was summed from this process's memory.
func (w *scanner) prove(base int64) error {
	if !w.proven {
		return nil
	}
	for _, s := range w.writes {
		at := span{(base + s.off) % w.dst.chunk, s.n}
		sum := written{at, cephCRC(crcSeed, w.buf.b[s.off:s.off+s.n])}
		if err := w.dst.prove((base+s.off)/w.dst.chunk, []written{sum}); err != nil {
			return err
		}
	}
	return nil
}

// corrupt is the error for the first of the blocks that are not what they were.
func corrupt(id string, d Damage) error {
	return &Error{Op: "read", Object: "backup " + id, Kind: ErrCorrupt,
		Reason: fmt.Sprintf("the block at offset %d (%d bytes) has the checksum %08x, not %08x", d.Offset, d.Length, d.Sum, d.Want)}
}
