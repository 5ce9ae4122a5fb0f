// The L2 entries of a qcow2, and reading the clusters they point at.

package disk

import (
	"encoding/binary"
	"fmt"
	"math/bits"
)

// cluster is a judged L2 entry: where the bytes of one cluster are.
type cluster struct {
	off    int64  // in the file; 0: reads as zeros
	packed int64  // the number of bytes at off that may be its compressed form; 0: it is not compressed
	parts  uint32 // extended L2: the subclusters that are data, lowest first; else all ones
	below  uint32 // the subclusters that are not in this file but in its backing file
}

// whole is all subclusters of a cluster, those of one without subclusters included.
const whole = ^uint32(0)

// entry judges entry k of table, which is that of the cluster numbered no. The
// same judgement is made by the walk before the import and at every read: a
// table that changes in between cannot lead out of the file.
func (q *qcow2) entry(table []byte, k, no int64) (cluster, error) {
	e := binary.BigEndian.Uint64(table[k*q.entrySize():])
	var bitmap uint64
	if q.extended {
		bitmap = binary.BigEndian.Uint64(table[k*16+8:])
	}
	if e == 0 && bitmap == 0 {
		return cluster{below: whole}, nil
	}
	bad := func() error {
		return fmt.Errorf("L2 entry of cluster %d is damaged (%#x); qemu-img check FILE tells more", no, e)
	}
	if e&compressFlag != 0 {
		c, inFile := q.compressed(e)
		switch {
		case e&copiedFlag != 0 || c.off == 0:
			return c, bad()
		case !inFile:
			return c, fmt.Errorf("%w: compressed cluster %d at %#x is beyond its end", errCut, no, c.off)
		}
		return c, nil
	}
	off := int64(e & offsetMask)
	zero := e&zeroFlag != 0
	alloc, zeros := uint32(bitmap), uint32(bitmap>>32)
	switch {
	case e&l2Reserved != 0 || off&(q.clusterSize()-1) != 0:
		return cluster{}, bad()
	case zero && (q.version < 3 || q.extended):
		return cluster{}, bad()
	case alloc&zeros != 0 || off == 0 && (alloc != 0 || e&copiedFlag != 0):
		return cluster{}, bad()
	case zero:
		return cluster{}, nil
	case off == 0 || q.extended && alloc == 0:
		return cluster{below: ^zeros}, nil
	case !q.extended:
		alloc, zeros = whole, 0
	}
	// QEMU may leave out the end of the last cluster that the disk does not use.
	used := min(q.clusterSize(), q.size-no<<q.clusterBits)
	last := int64(32-bits.LeadingZeros32(alloc)) * (q.clusterSize() / 32)
	if !q.inFile(uint64(off), min(used, last)) {
		return cluster{}, fmt.Errorf("%w: cluster %d at %#x is beyond its end", errCut, no, off)
	}
	return cluster{off: off, parts: alloc, below: ^(alloc | zeros)}, nil
}

// compressed decodes the entry of a compressed cluster: a byte offset, and the
// number of further 512-byte sectors that the data reaches into. The last
// sector need not be all there.
func (q *qcow2) compressed(e uint64) (c cluster, inFile bool) {
	x := 62 - (q.clusterBits - 8)
	off := e & (1<<x - 1)
	sectors := int64(e&(compressFlag-1)>>x) + 1
	c = cluster{off: int64(off), packed: sectors*512 - int64(off&511)}
	end := c.off + c.packed // at most 2^61 + 2^22
	if off >= uint64(q.fileSize) || end > (q.fileSize+511)&^511 {
		return c, false
	}
	c.packed = min(c.packed, q.fileSize-c.off)
	return c, true
}

// readQcow2 fills p with the allocated bytes from off on and notes them, and what is
// in the backing file.
func (r *reader) readQcow2(p []byte, off int64) error {
	q := r.qcow2
	end := off + int64(len(p))
	var run rawRun
	r.holes = r.holes[:0]
	for pos := off; pos < end; {
		first := pos >> q.clusterBits
		n := min((end-1)>>q.clusterBits+1-first, q.perTable()-first%q.perTable())
		table, err := q.entries(&r.table, first, n)
		if err != nil {
			return err
		}
		if table == nil {
			lo := max(off, first<<q.clusterBits)
			r.hole(lo-off, min(end, (first+n)<<q.clusterBits)-lo)
		}
		for k := int64(0); table != nil && k < n; k++ {
			c, err := q.entry(table, k, first+k)
			if err != nil {
				return err
			}
			if err := r.readCluster(p, off, (first+k)<<q.clusterBits, c, &run); err != nil {
				return err
			}
		}
		pos = (first + n) << q.clusterBits
	}
	if err := r.flush(p, &run); err != nil {
		return err
	}
	return r.fillHoles(p, off)
}

// rawRun is a read not yet made: neighbours in the file become one read.
type rawRun struct{ file, at, n int64 }

// readCluster reads what p (which starts at off) shares with the cluster at
// virtual offset at.
func (r *reader) readCluster(p []byte, off, at int64, c cluster, run *rawRun) error {
	lo, hi := max(off, at), min(off+int64(len(p)), at+r.qcow2.clusterSize())
	if c.below == whole {
		r.hole(lo-off, hi-lo)
	}
	if c.below == whole || c.off == 0 && c.below == 0 {
		return nil
	}
	if c.packed != 0 {
		if err := r.flush(p, run); err != nil {
			return err
		}
		return r.readPacked(p[lo-off:hi-off], lo-off, lo-at, c)
	}
	if c.parts == whole {
		return r.add(p, run, rawRun{c.off + lo - at, lo - off, hi - lo})
	}
	sub := r.qcow2.clusterSize() / 32
	for i := range int64(32) {
		slo, shi := max(lo, at+i*sub), min(hi, at+(i+1)*sub)
		if c.below&(1<<i) != 0 && slo < shi {
			r.hole(slo-off, shi-slo)
		}
		if c.parts&(1<<i) == 0 || slo >= shi {
			continue
		}
		if err := r.add(p, run, rawRun{c.off + slo - at, slo - off, shi - slo}); err != nil {
			return err
		}
	}
	return nil
}

// add joins next to run if they touch, else reads run first.
func (r *reader) add(p []byte, run *rawRun, next rawRun) error {
	if run.n > 0 && run.file+run.n == next.file && run.at+run.n == next.at {
		run.n += next.n
		return nil
	}
	err := r.flush(p, run)
	*run = next
	return err
}

func (r *reader) flush(p []byte, run *rawRun) error {
	if run.n == 0 {
		return nil
	}
	if err := readFull(r.qcow2.f, p[run.at:run.at+run.n], run.file); err != nil {
		return err
	}
	r.note(run.at, run.n)
	run.n = 0
	return nil
}

// readPacked fills dst, which is at `at` in the chunk, with the bytes from skip
// on of a compressed cluster.
func (r *reader) readPacked(dst []byte, at, skip int64, c cluster) error {
	size := r.qcow2.clusterSize()
	if r.unpack == nil {
		// The last sector of the data may be in use up to twice the cluster.
		r.packed = make([]byte, 2*size+512)
		r.unpack = newUnpacker(r.qcow2.zstd)
	}
	packed := r.packed[:min(c.packed, int64(len(r.packed)))]
	if err := readFull(r.qcow2.f, packed, c.off); err != nil {
		return err
	}
	out := dst
	if int64(len(dst)) < size {
		if r.cluster == nil {
			r.cluster = make([]byte, size)
		}
		out = r.cluster
	}
	if err := r.unpack.unpack(out, packed); err != nil {
		return fmt.Errorf("compressed cluster at %#x: %w; qemu-img check FILE tells more", c.off, err)
	}
	if len(out) != len(dst) {
		copy(dst, out[skip:])
	}
	r.note(at, int64(len(dst)))
	return nil
}
