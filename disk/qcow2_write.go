// Writing a qcow2: version 3, without compression, backing file or snapshots.
// Written from docs/interop/qcow2.txt of QEMU. No library for it is to be had.
//
// The file only grows: header and L1 table first, then data clusters, each run of
// 512 MiB followed by its L2 table, and the reference counts last. Only one L2 table
// is in memory, and every cluster of the file is used exactly once.

package disk

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
)

const (
	writeBits    = 16 // 64 KiB clusters, as qemu-img makes them
	writeCluster = 1 << writeBits
	// perL2 is how many clusters an L2 table leads to, one reference block counts
	// four times as many.
	perL2       = writeCluster / 8
	perRefBlock = writeCluster / 2
	sectorSize  = 512
)

// qcow2File is a qcow2 in the making.
type qcow2File struct {
	f    io.WriterAt
	size int64 // virtual
	next int64 // the first free cluster of the file
	l1   []uint64
	l2   []byte // the table of the part that is being written
	part int64  // which one that is, or -1
	pad  []byte
}

func newQcow2File(f io.WriterAt, size int64) *qcow2File {
	q := &qcow2File{f: f, part: -1, l2: make([]byte, writeCluster), pad: make([]byte, writeCluster)}
	q.size = (size + sectorSize - 1) / sectorSize * sectorSize // QEMU counts sectors
	q.l1 = make([]uint64, clustersFor(q.size, perL2*writeCluster))
	q.next = 1 + clustersFor(int64(len(q.l1))*8, writeCluster)
	return q
}

// clustersFor is how many units of that size hold n.
func clustersFor(n, unit int64) int64 { return (n + unit - 1) / unit }

// write appends the clusters of p that are not zeros. off is a multiple of the
// cluster size, and only the image's last piece ends within a cluster.
func (q *qcow2File) write(p []byte, off int64) error {
	var run []byte // clusters that lie side by side go out together
	flush := func() error {
		err := q.append(run)
		run = nil
		return err
	}
	for at := int64(0); at < int64(len(p)); at += writeCluster {
		cluster := p[at:min(at+writeCluster, int64(len(p)))]
		if bytes.Equal(cluster, zeros[:len(cluster)]) {
			if err := flush(); err != nil {
				return err
			}
			continue
		}
		if part := (off + at) / writeCluster / perL2; part != q.part {
			if err := errors.Join(flush(), q.enter(part)); err != nil {
				return err
			}
		}
		index := (off + at) / writeCluster % perL2
		host := q.next + clustersFor(int64(len(run)), writeCluster)
		binary.BigEndian.PutUint64(q.l2[index*8:], uint64(host)<<writeBits|copiedFlag)
		run = p[at-int64(len(run)) : at+int64(len(cluster))]
	}
	return flush()
}

// append puts whole clusters at the end of the file, the last one filled up.
func (q *qcow2File) append(p []byte) error {
	if len(p) == 0 {
		return nil
	}
	if _, err := q.f.WriteAt(p, q.next<<writeBits); err != nil {
		return err
	}
	whole := clustersFor(int64(len(p)), writeCluster)
	if rest := whole<<writeBits - int64(len(p)); rest > 0 {
		if _, err := q.f.WriteAt(q.pad[:rest], q.next<<writeBits+int64(len(p))); err != nil {
			return err
		}
	}
	q.next += whole
	return nil
}

// enter makes the L2 table of a part the current one.
func (q *qcow2File) enter(part int64) error {
	if err := q.leave(); err != nil {
		return err
	}
	q.part = part
	clear(q.l2)
	return nil
}

// leave appends the current L2 table.
func (q *qcow2File) leave() error {
	if q.part < 0 {
		return nil
	}
	q.l1[q.part] = uint64(q.next)<<writeBits | copiedFlag
	return q.append(q.l2)
}

// end writes what leads to the data, the header last.
func (q *qcow2File) end() error {
	if err := q.leave(); err != nil {
		return err
	}
	l1 := make([]byte, 0, len(q.l1)*8)
	for _, entry := range q.l1 {
		l1 = binary.BigEndian.AppendUint64(l1, entry)
	}
	if _, err := q.f.WriteAt(l1, writeCluster); err != nil {
		return err
	}
	table, clusters, err := q.count()
	if err != nil {
		return err
	}
	_, err = q.f.WriteAt(q.header(table, clusters), 0)
	return err
}

// count appends the reference counts, those of their own clusters included, and
// returns where their table is and how many clusters it has.
func (q *qcow2File) count() (table, tableClusters int64, err error) {
	used, blocks := q.next, int64(0)
	for {
		tableClusters = clustersFor(blocks*8, writeCluster)
		needs := clustersFor(used+blocks+tableClusters, perRefBlock)
		if needs == blocks {
			break
		}
		blocks = needs
	}
	total := used + blocks + tableClusters
	entries := make([]byte, 0, tableClusters*writeCluster)
	block := make([]byte, writeCluster)
	for i := range blocks {
		clear(block)
		for k := range min(total-i*perRefBlock, perRefBlock) {
			binary.BigEndian.PutUint16(block[k*2:], 1)
		}
		entries = binary.BigEndian.AppendUint64(entries, uint64(q.next)<<writeBits)
		if err := q.append(block); err != nil {
			return 0, 0, err
		}
	}
	table = q.next
	return table, tableClusters, q.append(entries)
}

func (q *qcow2File) header(table, tableClusters int64) []byte {
	const length = 104
	be := binary.BigEndian
	h := make([]byte, length+8) // the end of the header's extensions is 8 zeros
	copy(h, "QFI\xfb")
	be.PutUint32(h[4:], 3) // version
	be.PutUint32(h[20:], writeBits)
	be.PutUint64(h[24:], uint64(q.size))
	be.PutUint32(h[36:], uint32(len(q.l1)))
	be.PutUint64(h[40:], writeCluster) // the L1 table
	be.PutUint64(h[48:], uint64(table)<<writeBits)
	be.PutUint32(h[56:], uint32(tableClusters))
	be.PutUint32(h[96:], 4) // reference counts of 2^4 bits
	be.PutUint32(h[100:], length)
	return h
}
