// What of a qcow2 librbd 16.2 reads right. It fails at a compressed cluster, and at one
// that the end of the file cuts short, only when it comes to it; what a cluster has that
// is both allocated and all zeros it reads from a byte further on, and says nothing.
// Source: librbd, migration/QCOWFormat.cc.

package disk

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// judgePlain refuses by the header what librbd cannot read.
func (q *qcow2) judgePlain(h []byte) error {
	switch snapshots := binary.BigEndian.Uint32(h[60:]); {
	case snapshots != 0:
		return fmt.Errorf("it has %d internal snapshots, which would become the disk's own; %s", snapshots, plainAdvice)
	case q.extended:
		return fmt.Errorf("it has extended L2 entries, which librbd does not read; %s", plainAdvice)
	case q.zstd:
		return fmt.Errorf("it is compressed, which librbd does not read; %s", plainAdvice)
	case q.size%512 != 0:
		return fmt.Errorf("its virtual size %d is not a multiple of 512", q.size)
	}
	return nil
}

// plainAdvice is the way out of each refusal here.
const plainAdvice = "import it instead (vmdisk image import), or rewrite it: " + "qemu-img convert -O qcow2 FILE NEW.qcow2"

// plainEntry refuses an L2 entry that librbd would read wrong.
func (q *qcow2) plainEntry(e uint64, c cluster, no int64) error {
	switch {
	case c.packed != 0:
		return errors.New("it is compressed, which librbd does not read; " + plainAdvice)
	case e&zeroFlag != 0 && e&offsetMask != 0:
		return fmt.Errorf("cluster %d is zeros that are allocated, which librbd reads wrong; %s", no, plainAdvice)
	case c.off != 0 && !q.inFile(uint64(c.off), q.clusterSize()):
		return fmt.Errorf("the file ends within cluster %d, which librbd does not read; %s", no, plainAdvice)
	}
	return nil
}
