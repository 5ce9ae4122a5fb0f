// Checksums of backups: a CRC of each 64 KiB that a backup wrote, so that it can be
// read again and compared. They are in objects of our own, which Cinder does not
// know, a page for each 4 GiB of the volume.

package disk

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/bits"
	"strconv"

	"github.com/ceph/go-ceph/rados"
)

const (
	sumGrain   = zeroGrain           // bytes that one checksum is of
	pageSpan   = 4 << 30             // bytes of the volume that a page is for
	pageGrains = pageSpan / sumGrain // and how many checksums that is at most
	sumEntry   = 6                   // bytes of a page for one: number and CRC
)

// zeroCRC continues a CRC32C that begins with 0, so that zeros, however many, have
// the CRC 0: what was never written needs no checksum.
func zeroCRC(crc uint32, p []byte) uint32 { return cephCRC(crc, p) }

// sumPage has the checksums of one page's grains. It is filled by several
// goroutines, each with grains of its own that share no word of has.
type sumPage struct {
	has [pageGrains / 64]uint64
	crc [pageGrains]uint32
}

func (p *sumPage) set(grain int64, crc uint32) {
	p.has[grain/64] |= 1 << (grain % 64)
	p.crc[grain] = crc
}

func (p *sumPage) get(grain int64) (crc uint32, ok bool) {
	return p.crc[grain], p.has[grain/64]&(1<<(grain%64)) != 0
}

// overlay puts a later page over this one.
func (p *sumPage) overlay(later *sumPage) {
	for word, has := range later.has {
		for ; has != 0; has &= has - 1 {
			grain := int64(word*64 + bits.TrailingZeros64(has))
			p.set(grain, later.crc[grain])
		}
	}
}

// cut forgets what lies behind the end of a volume of this size, and blank makes
// zeros of what lies between two: what was cut off once was zeros ever after.
func (p *sumPage) cut(page, size int64) {
	for g := grainAt(page, size); g < pageGrains; g++ {
		p.has[g/64] &^= 1 << (g % 64)
		p.crc[g] = 0
	}
}

func (p *sumPage) blank(page, from, to int64) {
	for g := grainAt(page, from); g < grainAt(page, to); g++ {
		p.set(g, 0)
	}
}

// grainAt is the first grain of a page that begins at or behind an offset.
func grainAt(page, off int64) int64 {
	return min(max((off+sumGrain-1)/sumGrain-page*pageGrains, 0), pageGrains)
}

// encode is the page as it is stored: entries, and a CRC of them all.
func (p *sumPage) encode() []byte {
	var out []byte
	for word, has := range p.has {
		for ; has != 0; has &= has - 1 {
			grain := word*64 + bits.TrailingZeros64(has)
			out = binary.LittleEndian.AppendUint16(out, uint16(grain))
			out = binary.LittleEndian.AppendUint32(out, p.crc[grain])
		}
	}
	if out == nil {
		return nil
	}
	return binary.LittleEndian.AppendUint32(out, cephCRC(crcSeed, out))
}

// decode lays what was stored over the page; false is a page that is damaged.
func (p *sumPage) decode(data []byte) bool {
	n := len(data) - 4
	if n < 0 || n%sumEntry != 0 || binary.LittleEndian.Uint32(data[n:]) != cephCRC(crcSeed, data[:n]) {
		return false
	}
	for ; n > 0; n -= sumEntry {
		entry := data[n-sumEntry : n]
		p.set(int64(binary.LittleEndian.Uint16(entry)), binary.LittleEndian.Uint32(entry[2:]))
	}
	return true
}

func sumObject(id string, page int64) string {
	return fmt.Sprintf("vmdisk.backup.%s.sums.%06x", id, page)
}

func pagesOf(size int64) int64 { return (size + pageSpan - 1) / pageSpan }

// writeSums stores a page; one without entries is none.
func writeSums(io *rados.IOContext, id string, number int64, p *sumPage) error {
	data := p.encode()
	if data == nil {
		return nil
	}
	return wrap("write checksums of", "backup "+id, io.WriteFull(sumObject(id, number), data))
}

// readSums lays a backup's page over p.
func readSums(io *rados.IOContext, id string, number int64, p *sumPage) error {
	object := sumObject(id, number)
	data, err := readObject(io, object)
	if is(err, ErrNotFound) {
		return nil
	}
	if err != nil {
		return wrap("read checksums of", "backup "+id, err)
	}
	if !p.decode(data) {
		return &Error{Op: "read checksums of", Object: "backup " + id, Kind: ErrCorrupt,
			Reason: "the object " + object + " with its checksums is damaged"}
	}
	return nil
}

// removeSums removes all pages of a backup of this size, those that are there.
func removeSums(ctx context.Context, io *rados.IOContext, id string, size int64) error {
	var pages []string
	for n := range pagesOf(size) {
		pages = append(pages, strconv.FormatInt(n, 10))
	}
	_, err := each(ctx, pages, func(page string) (struct{}, error) {
		n, _ := strconv.ParseInt(page, 10, 64)
		err := io.Delete(sumObject(id, n))
		return struct{}{}, ignore(wrap("remove checksums of", "backup "+id, err), ErrNotFound)
	})
	return err
}

// mergeSums lays the checksums of a later backup over those of the one before it,
// and gives the later one the result. Below them may be those of volumes as large
// as most. Run again it comes to the same.
func mergeSums(ctx context.Context, io *rados.IOContext, before, later Backup, most int64) error {
	for n := range pagesOf(later.Size) {
		if err := ctx.Err(); err != nil {
			return err
		}
		p, over := new(sumPage), new(sumPage)
		if err := readSums(io, before.ID, n, p); err != nil {
			return err
		}
		if err := readSums(io, later.ID, n, over); err != nil {
			return err
		}
		p.blank(n, before.Size, most)
		p.overlay(over)
		p.cut(n, later.Size)
		if err := writeSums(io, later.ID, n, p); err != nil {
			return err
		}
	}
	return nil
}
