// Which pieces of a chunk are written: those that are not what the image has anyway.

package disk

import "bytes"

// find reads the chunk at off and notes which pieces of it are to be written.
func (w *copyWorker) find(off, n int64) error {
	w.pieces = w.pieces[:0]
	if w.basis != nil {
		return w.compare(off, n)
	}
	data, err := w.r.read(w.buf.b[:n], off)
	for _, s := range data {
		w.pieces = nonzero(w.pieces, w.buf.b, s)
	}
	return err
}

// compare is find where what the basis has is in the image, as its parent's.
func (w *copyWorker) compare(off, n int64) error {
	if w.was == nil {
		w.was = make([]byte, w.chunk)
	}
	if err := w.r.all(w.buf.b[:n], off); err != nil {
		return err
	}
	if err := w.basis.all(w.was[:n], off); err != nil {
		return err
	}
	w.pieces = unlike(w.pieces, w.buf.b, w.was, span{0, n})
	return nil
}

var zeros [zeroGrain]byte

// nonzero appends to pieces the parts of s that are not all zeros. Pieces are
// cut at multiples of zeroGrain and joined where they touch.
func nonzero(pieces []span, p []byte, s span) []span { return unlike(pieces, p, nil, s) }

// unlike is nonzero for those that are not as in was, if that is not nil.
func unlike(pieces []span, p, was []byte, s span) []span {
	for off, end := s.off, s.off+s.n; off < end; {
		next := min(off/zeroGrain*zeroGrain+zeroGrain, end)
		like := zeros[:next-off]
		if was != nil {
			like = was[off:next]
		}
		if !bytes.Equal(p[off:next], like) {
			k := len(pieces)
			if k > 0 && pieces[k-1].off+pieces[k-1].n == off {
				pieces[k-1].n = next - pieces[k-1].off
			} else {
				pieces = append(pieces, span{off, next - off})
			}
		}
		off = next
	}
	return pieces
}
