// ISO 9660, as much of it as a config drive needs: a few files in one folder, with
// Rock Ridge and Joliet for their true names. It is written in memory: tools that
// build one from a folder (genisoimage, go-diskfs) leave what is in it, which may be
// secret, on the host's own disk when they are killed.

package disk

import (
	"encoding/binary"
	"slices"
	"strings"
	"time"
	"unicode/utf16"
)

// Where things are, in sectors. Sources: ECMA-119, the Joliet specification,
// IEEE P1281 (SUSP) and P1282 (Rock Ridge).
const (
	sector        = 2048
	primarySector = 16
	jolietSector  = 17
	endSector     = 18
	tableSectors  = 19 // four path tables: primary and Joliet, little- and big-endian
	rootSector    = 23
	jolietRoot    = 24
	dataSector    = 25
)

// isoFile is one file of the folder.
type isoFile struct {
	name string
	data []byte
}

// isoTree is one of the two descriptions of the same files: the primary one, with
// Rock Ridge, and Joliet's.
type isoTree struct {
	joliet  bool
	at      uint32 // the sector of its folder
	created time.Time
}

// writeISO makes an image with the label and the files. The folder must fit a
// sector, which a handful of short names does.
func writeISO(label string, created time.Time, files []isoFile) []byte {
	files = slices.Clone(files)
	slices.SortFunc(files, func(a, b isoFile) int { return strings.Compare(a.name, b.name) })
	extents := make([]uint32, len(files))
	end := uint32(dataSector)
	for i, f := range files {
		extents[i] = end
		end += uint32((len(f.data) + sector - 1) / sector)
	}
	image := make([]byte, int(end)*sector)
	at := func(n uint32) []byte { return image[int(n)*sector:] }
	for i, f := range files {
		copy(at(extents[i]), f.data)
	}
	primary := isoTree{at: rootSector, created: created.UTC()}
	joliet := isoTree{joliet: true, at: jolietRoot, created: created.UTC()}
	copy(at(primarySector), primary.descriptor(label, end, tableSectors))
	copy(at(jolietSector), joliet.descriptor(label, end, tableSectors+2))
	copy(at(endSector), "\xffCD001\x01")
	copy(at(tableSectors), pathTable(binary.LittleEndian, rootSector))
	copy(at(tableSectors+1), pathTable(binary.BigEndian, rootSector))
	copy(at(tableSectors+2), pathTable(binary.LittleEndian, jolietRoot))
	copy(at(tableSectors+3), pathTable(binary.BigEndian, jolietRoot))
	copy(at(rootSector), primary.folder(files, extents))
	copy(at(jolietRoot), joliet.folder(files, extents))
	return image
}

// both32 and both16 are numbers in both byte orders, as ISO 9660 has them.
func both32(n uint32) []byte {
	return binary.BigEndian.AppendUint32(binary.LittleEndian.AppendUint32(nil, n), n)
}

func both16(n uint16) []byte {
	return binary.BigEndian.AppendUint16(binary.LittleEndian.AppendUint16(nil, n), n)
}

// pathTable lists the only folder, the root.
func pathTable(order binary.AppendByteOrder, root uint32) []byte {
	table := order.AppendUint32([]byte{1, 0}, root)
	return append(order.AppendUint16(table, 1), 0, 0)
}

const pathTableSize = 10

// descriptor is the volume descriptor.
func (t isoTree) descriptor(label string, sectors, table uint32) []byte {
	kind, escape := byte(1), ""
	if t.joliet {
		kind, escape = 2, "%/E"
	}
	d := append([]byte{kind}, "CD001\x01\x00"...)
	d = append(d, t.text("", 32)...)
	d = append(d, t.text(label, 32)...)
	d = append(d, make([]byte, 8)...)
	d = append(d, both32(sectors)...)
	d = append(d, padded([]byte(escape), 32, 0)...)
	for _, n := range []uint16{1, 1, sector} { // volumes, which of them, block size
		d = append(d, both16(n)...)
	}
	d = append(d, both32(pathTableSize)...)
	d = binary.LittleEndian.AppendUint32(d, table)
	d = append(d, 0, 0, 0, 0)
	d = binary.BigEndian.AppendUint32(d, table+1)
	d = append(d, 0, 0, 0, 0)
	d = append(d, t.record([]byte{0}, t.at, sector, true, nil)...)
	for _, n := range []int{128, 128, 128, 128, 37, 37, 37} { // who made it, and of what
		d = append(d, t.text("", n)...)
	}
	for range 2 { // created and changed
		d = append(d, t.created.Format("20060102150405")+"00\x00"...)
	}
	for range 2 { // expires and becomes valid: never said
		d = append(d, "0000000000000000\x00"...)
	}
	return append(d, 1) // the version of all this
}

// text is a field of n bytes, filled up with spaces.
func (t isoTree) text(s string, n int) []byte {
	if !t.joliet {
		return padded([]byte(s), n, ' ')
	}
	field := ucs2(s)
	for len(field)+1 < n {
		field = append(field, 0, ' ')
	}
	return padded(field, n, 0)
}

func padded(b []byte, n int, with byte) []byte {
	for len(b) < n {
		b = append(b, with)
	}
	return b
}

func ucs2(s string) []byte {
	var b []byte
	for _, u := range utf16.Encode([]rune(s)) {
		b = binary.BigEndian.AppendUint16(b, u)
	}
	return b
}

// folder is the root folder: itself, its parent, which is itself, and the files.
func (t isoTree) folder(files []isoFile, extents []uint32) []byte {
	self := t.rockRidge("", 0o40555)
	if self != nil {
		// Where Rock Ridge says that it is there: SP, then ER.
		self = slices.Concat([]byte{'S', 'P', 7, 1, 0xbe, 0xef, 0}, self,
			[]byte{'E', 'R', 18, 1, 10, 0, 0, 1}, []byte("RRIP_1991A"))
	}
	b := t.record([]byte{0}, t.at, sector, true, self)
	b = append(b, t.record([]byte{1}, t.at, sector, true, t.rockRidge("", 0o40555))...)
	for i, f := range files {
		name := ucs2(f.name)
		if !t.joliet {
			name = []byte(strings.ToUpper(strings.ReplaceAll(f.name, "-", "_")) + ".;1")
		}
		b = append(b, t.record(name, extents[i], uint32(len(f.data)), false, t.rockRidge(f.name, 0o100444))...)
	}
	return b
}

// record is a folder's entry.
func (t isoTree) record(name []byte, extent, size uint32, folder bool, extra []byte) []byte {
	flags := byte(0)
	if folder {
		flags = 2
	}
	when := t.created
	r := slices.Concat([]byte{0, 0}, both32(extent), both32(size),
		[]byte{byte(when.Year() - 1900), byte(when.Month()), byte(when.Day()), byte(when.Hour()), byte(when.Minute()), byte(when.Second()), 0},
		[]byte{flags, 0, 0}, both16(1), []byte{byte(len(name))}, name)
	if len(r)%2 == 1 {
		r = append(r, 0)
	}
	r = append(r, extra...)
	if len(r)%2 == 1 {
		r = append(r, 0)
	}
	r[0] = byte(len(r))
	return r
}

// rockRidge is a file's mode (PX) and its true name (NM).
func (t isoTree) rockRidge(name string, mode uint32) []byte {
	if t.joliet {
		return nil
	}
	b := []byte{'P', 'X', 36, 1}
	for _, n := range []uint32{mode, 1, 0, 0} { // mode, links, owner, group
		b = append(b, both32(n)...)
	}
	if name == "" {
		return b
	}
	return slices.Concat(b, []byte{'N', 'M', byte(5 + len(name)), 1, 0}, []byte(name))
}
