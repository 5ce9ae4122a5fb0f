// Reading an image file piece by piece: where its data is, and the data.

package disk

import (
	"errors"
	"io"
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
}

func (s *Source) newReader() *reader { return &reader{Source: s} }

func (r *reader) close() {
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
		d, err := r.nextData(pos)
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
