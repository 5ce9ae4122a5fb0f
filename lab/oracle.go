// The oracle's disk: the numbered blocks that the guest writes, and how they are
// read back from an image, so that a test can say that none was lost.

package lab

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
)

// The layout of a disk that the oracle writes on. A header block is at the
// base, and after it a ring of slots: number n is in slot n modulo OracleSlots.
// A block holds the line "MAGIC:1:DISK:BOOT:NUMBER:" at its start, padded with
// spaces, and the same line again at its end. guest/init writes it.
const (
	// OracleMagic begins every block.
	OracleMagic = "vmdisk-oracle"
	// OracleBlock is the size of a block in bytes.
	OracleBlock = 4096
	// OracleSlots is how many of the latest blocks a disk holds.
	OracleSlots = 2048
	// OracleRootBase is the base on a guest's root disk, in bytes, after its
	// partitions. On every other disk the base is 0.
	OracleRootBase = 48 << 20

	oracleRegion = (OracleSlots + 1) * OracleBlock
	oracleTail   = 64
)

// ErrNoOracle is returned for a disk that the oracle never wrote on.
var ErrNoOracle = errors.New("the oracle has not written on this disk")

// Blocks are the numbered blocks found on a disk.
type Blocks struct {
	// Numbers are those found whole and in their places, in ascending order.
	Numbers []uint64
	// Highest is the last of them, or 0.
	Highest uint64
	// Torn are the slots that hold something else than a whole block.
	Torn []int
}

// OracleBlocks reads the oracle's blocks from a disk image of size bytes: of a
// root disk made from Lab.Guest, or of a further disk. The error is ErrNoOracle
// if there is no header.
func OracleBlocks(r io.ReaderAt, size int64) (Blocks, error) {
	base, err := findBase(r, size)
	if err != nil {
		return Blocks{}, err
	}
	ring := make([]byte, OracleSlots*OracleBlock)
	if _, err := r.ReadAt(ring, base+OracleBlock); err != nil && err != io.EOF {
		return Blocks{}, fmt.Errorf("lab: reading the oracle's ring: %w", err)
	}
	var b Blocks
	blank := make([]byte, OracleBlock)
	for slot := range OracleSlots {
		block := ring[slot*OracleBlock:][:OracleBlock]
		n, ok := parseBlock(block)
		switch {
		case ok && n%OracleSlots == uint64(slot):
			b.Numbers = append(b.Numbers, n)
		case !bytes.Equal(block, blank):
			b.Torn = append(b.Torn, slot)
		}
	}
	slices.Sort(b.Numbers)
	if len(b.Numbers) > 0 {
		b.Highest = b.Numbers[len(b.Numbers)-1]
	}
	return b, nil
}

// findBase returns where the header is: a further disk has it at 0, a root disk
// after its partitions.
func findBase(r io.ReaderAt, size int64) (int64, error) {
	for _, base := range []int64{0, OracleRootBase} {
		if base+oracleRegion > size {
			continue
		}
		head := make([]byte, len(OracleMagic))
		if _, err := r.ReadAt(head, base); err != nil {
			return 0, fmt.Errorf("lab: reading the oracle's header: %w", err)
		}
		if string(head) == OracleMagic {
			return base, nil
		}
	}
	return 0, ErrNoOracle
}

// parseBlock returns the number of a whole block.
func parseBlock(block []byte) (n uint64, ok bool) {
	split := len(block) - oracleTail
	head := strings.TrimRight(string(block[:split]), " \n")
	tail := strings.TrimRight(string(block[split:]), " \n")
	fields := strings.Split(head, ":")
	if head != tail || len(fields) != 6 || fields[0] != OracleMagic {
		return 0, false
	}
	n, err := strconv.ParseUint(fields[4], 10, 64)
	return n, err == nil
}

// Check returns an error that names what was lost, if not every number up to
// acked is on the disk: the highest that the guest saw acknowledged, see
// [Console.Acked]. Numbers that the ring has since written over are not missed.
func (b Blocks) Check(acked uint64) error {
	if b.Highest < acked {
		return fmt.Errorf("lab: block %d was acknowledged, but the highest on the disk is %d", acked, b.Highest)
	}
	// The slot after the highest may have been written without an
	// acknowledgement, over the oldest block.
	first := uint64(1)
	if b.Highest+2 > OracleSlots {
		first = b.Highest + 2 - OracleSlots
	}
	for n := first; n <= acked; n++ {
		if _, found := slices.BinarySearch(b.Numbers, n); !found {
			return fmt.Errorf("lab: block %d was acknowledged (up to %d) and is not on the disk", n, acked)
		}
	}
	for _, slot := range b.Torn {
		if uint64(slot) != (b.Highest+1)%OracleSlots {
			return fmt.Errorf("lab: slot %d holds neither nothing nor a whole block", slot)
		}
	}
	return nil
}
