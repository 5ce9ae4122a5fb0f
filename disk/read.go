// Reading an image file piece by piece: where its data is, and the data.

package disk

import (
	"cmp"
	"errors"
	"io"
	"slices"
	"syscall"
)

// lseek(2); package syscall does not name them.
const (
	seekData = 3
	seekHole = 4
)

// span is a range of bytes.
type span struct{ off, n int64 }

// nextData returns the first offset from off on where the source may hold
// anything but zeros, or its size. It may be called while other goroutines read.
func (s *Source) nextData(off int64) (int64, error) {
	next, err := s.nextOwn(off)
	if err != nil || s.below == nil || off >= s.below.size {
		return next, err
	}
	under, err := s.below.nextData(off)
	if under == s.below.size { // it has no more
		under = s.size
	}
	return min(next, under, s.size), err
}

// nextOwn is nextData without what is in the backing file.
func (s *Source) nextOwn(off int64) (int64, error) {
	if s.qcow2 != nil {
		return s.qcow2.nextData(off), nil
	}
	if !s.seeks || off >= s.size {
		return min(off, s.size), nil
	}
	// lseek moves the file's position, which nobody uses: all reads are preads.
	d, err := syscall.Seek(int(s.f.Fd()), off, seekData)
	if errors.Is(err, syscall.ENXIO) {
		return s.size, nil
	}
	return min(d, s.size), err
}

// reader reads a Source. Every goroutine has its own: it owns the buffers that
// decompression needs. No table is cached: the entries of one chunk are one
// small read from the page cache, and so there is nothing to lock or to bound.
type reader struct {
	*Source
	spans   []span
	table   []byte // L2 entries
	packed  []byte // a compressed cluster as it is in the file
	cluster []byte // the same unpacked, if the chunk does not hold all of it
	unpack  unpacker
	below   *reader // reads the backing file; nil: there is none
	holes   []span  // of the chunk, that are in there
}

func (s *Source) newReader() *reader {
	r := &reader{Source: s}
	if s.below != nil {
		r.below = s.below.newReader()
	}
	return r
}

func (r *reader) close() {
	if r.below != nil {
		r.below.close()
	}
	if r.unpack != nil {
		r.unpack.close()
	}
}

// read puts the source's bytes from off on into p, but only those that may be
// other than zero: the spans it returns, relative to off and valid until the
// next call. The rest of p is left as it was.
func (r *reader) read(p []byte, off int64) ([]span, error) {
	r.spans = r.spans[:0]
	if r.qcow2 != nil {
		if err := r.readQcow2(p, off); err != nil {
			return nil, r.refuse("%w", err)
		}
		return r.spans, nil
	}
	end := off + int64(len(p))
	for pos := off; ; {
		d, err := r.nextOwn(pos)
		if err != nil {
			return nil, r.refuse("find data: %w", err)
		}
		if d >= end {
			return r.spans, nil
		}
		h := r.size
		if r.seeks {
			if h, err = syscall.Seek(int(r.f.Fd()), d, seekHole); err != nil {
				return nil, r.refuse("find holes: %w", err)
			}
		}
		h = min(h, end)
		if err := readFull(r.f, p[d-off:h-off], d); err != nil {
			return nil, r.refuse("%w", err)
		}
		r.note(d-off, h-d)
		pos = h
	}
}

// note records that [off, off+n) of the chunk was filled.
func (r *reader) note(off, n int64) {
	if k := len(r.spans); k > 0 && r.spans[k-1].off+r.spans[k-1].n == off {
		r.spans[k-1].n += n
		return
	}
	r.spans = append(r.spans, span{off, n})
}

// hole records that [off, off+n) of the chunk is in the backing file.
func (r *reader) hole(off, n int64) {
	if r.below == nil {
		return
	}
	if k := len(r.holes); k > 0 && r.holes[k-1].off+r.holes[k-1].n == off {
		r.holes[k-1].n += n
		return
	}
	r.holes = append(r.holes, span{off, n})
}

// fillHoles fills in what the backing file has. That can be shorter: the rest is zeros.
func (r *reader) fillHoles(p []byte, off int64) error {
	if len(r.holes) == 0 {
		return nil
	}
	for _, h := range r.holes {
		n := min(h.n, r.below.size-off-h.off)
		if n <= 0 {
			continue
		}
		found, err := r.below.read(p[h.off:h.off+n], off+h.off)
		if err != nil {
			return err
		}
		for _, s := range found {
			r.spans = append(r.spans, span{h.off + s.off, s.n})
		}
	}
	slices.SortFunc(r.spans, func(a, b span) int { return cmp.Compare(a.off, b.off) })
	merged := r.spans[:0]
	for _, s := range r.spans {
		if k := len(merged); k > 0 && merged[k-1].off+merged[k-1].n == s.off {
			merged[k-1].n += s.n
			continue
		}
		merged = append(merged, s)
	}
	r.spans = merged
	return nil
}

var errCut = errors.New("the file is cut short")

// readFull is ReadAt that gets all of p or says that the file ends too early.
func readFull(f io.ReaderAt, p []byte, off int64) error {
	n, err := f.ReadAt(p, off)
	switch {
	case n == len(p):
		return nil
	case errors.Is(err, io.EOF):
		return errCut
	default:
		return err
	}
}
