// Opening an image file: what it is, whether it may be imported, and noticing
// that it changed while it was.

package disk

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
	"time"
)

// ErrBadSource is wrapped by every refusal of a source file: a format that
// vmdisk does not read, a header that leads to other files, damage, a file that
// ends too early or changes while it is read. A file that cannot be opened at
// all is not a refusal: that error is the operating system's (fs.ErrNotExist,
// fs.ErrPermission).
var ErrBadSource = errors.New("bad image file")

// DefaultMaxSize is the virtual size in bytes (2 TiB) above which OpenSource
// refuses a file unless SourceOptions says otherwise: a qcow2 of one megabyte
// can claim 63 TiB.
const DefaultMaxSize = 2 << 40

// SourceOptions says how an image file is to be understood.
type SourceOptions struct {
	// Format is "raw", "qcow2", or "" to decide from the file's first bytes.
	// Naming the format is the safe habit: a guest chooses the first bytes of
	// its own raw disk.
	Format string
	// MaxSize is the largest virtual size accepted, in bytes; 0 means
	// DefaultMaxSize.
	MaxSize int64

	chained bool // it is part of a chain: it may have a backing file, and no snapshots
	plain   bool // librbd must be able to read it, too
}

// Source is an image file that has been judged and can be imported. It holds an
// open file: Close it. Its Size and Format may be asked from any goroutine.
type Source struct {
	f      *os.File
	path   string
	format string
	size   int64
	stamp  stamp
	qcow2  *qcow2  // nil: raw
	seeks  bool    // the file knows its holes
	below  *Source // its backing file; nil: it has none
	rate   int64   // bytes a second at which it is copied; 0 is as fast as can be
	// basis is that of its backing files which the image it is copied into is a clone of,
	// and above are those before it; nil: it is copied whole.
	basis *Source
	above []*Source
}

// OpenSource opens and judges the image file at path, a regular file or a block
// device. The header and, for a qcow2, every L1 and L2 entry are read and
// checked here, before a single byte goes anywhere: a file that needs another
// file (backing file, external data file), is encrypted, marked corrupt, cut
// short, or of another format is refused with an error that wraps ErrBadSource
// and says what to do. Internal snapshots of a qcow2 are ignored: what is
// imported is its active state. No other file is ever opened.
//
// It blocks for as long as reading the tables takes (about 1/8192 of the
// virtual size for 64 KiB clusters). The caller closes the Source.
//
// Similar to: qemu-img info and qemu-img check.
func OpenSource(path string, opts SourceOptions) (*Source, error) {
	if opts.MaxSize <= 0 {
		opts.MaxSize = DefaultMaxSize
	}
	// O_NONBLOCK: opening a FIFO nobody writes to must not hang.
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	s := &Source{f: f, path: path}
	if err := s.judge(opts); err != nil {
		f.Close()
		return nil, err
	}
	return s, nil
}

// Size is the virtual size in bytes: that of the disk, not of the file.
func (s *Source) Size() int64 { return s.size }

// Format is "raw" or "qcow2".
func (s *Source) Format() string { return s.format }

// Close closes the file, and its backing files.
func (s *Source) Close() error {
	err := s.f.Close()
	if s.below != nil {
		err = errors.Join(err, s.below.Close())
	}
	return err
}

// refuse makes the error of a refusal, which names the file.
func (s *Source) refuse(format string, args ...any) error {
	return fmt.Errorf("%w: %s: %w", ErrBadSource, s.path, fmt.Errorf(format, args...))
}

func (s *Source) judge(opts SourceOptions) error {
	fi, err := s.f.Stat()
	if err != nil {
		return err
	}
	isBlock := fi.Mode()&(os.ModeDevice|os.ModeCharDevice) == os.ModeDevice
	if !fi.Mode().IsRegular() && !isBlock {
		return s.refuse("not a regular file or block device (%s)", fi.Mode().Type())
	}
	if s.stamp, err = firstStamp(s.f); err != nil {
		return err
	}
	if s.stamp.size == 0 {
		return s.refuse("the file is empty")
	}
	s.qcow2 = &qcow2{f: s.f, fileSize: s.stamp.size, plain: opts.plain, chained: opts.chained}
	if s.format, s.size, err = s.qcow2.judgeContent(opts); err != nil {
		return s.refuse("%w", err)
	}
	if s.format == "raw" {
		s.qcow2 = nil
	}
	_, err = syscall.Seek(int(s.f.Fd()), 0, seekHole)
	s.seeks = err == nil
	return nil
}

// judgeContent settles the format and the virtual size of what q reads, which need not
// be a qcow2.
func (q *qcow2) judgeContent(opts SourceOptions) (format string, size int64, err error) {
	if opts.Format != "" && opts.Format != "raw" && opts.Format != "qcow2" {
		return "", 0, fmt.Errorf("format %q is not known; use raw or qcow2", opts.Format)
	}
	magic, err := probe(q.f, q.fileSize)
	if err != nil {
		return "", 0, fmt.Errorf("read the first bytes: %w", err)
	}
	if format, err = decide(opts.Format, magic); err != nil {
		return "", 0, err
	}
	size = q.fileSize
	if format == "qcow2" {
		if err := q.judge(opts.MaxSize); err != nil {
			return "", 0, err
		}
		size = q.size
	}
	if size > opts.MaxSize {
		return "", 0, fmt.Errorf("virtual size %d is above the limit of %d bytes", size, opts.MaxSize)
	}
	return format, size, nil
}

// magic is a format that a file's bytes say it has.
type magic struct {
	name   string // as people write it
	qemu   string // as qemu-img -f wants it; "" if it is no disk format
	unpack string // the command that makes a usable file, if it is no disk format
	at     int64  // where the bytes are; negative: from the end
	bytes  string
}

// magics lists what is recognised. QEMU's own probing would take any of the
// disk formats for what it says it is, which is why none of them passes as raw.
var magics = []magic{
	{name: "qcow2", qemu: "qcow2", bytes: "QFI\xfb"},
	{name: "QED", qemu: "qed", bytes: "QED\x00"},
	{name: "VMDK", qemu: "vmdk", bytes: "KDMV"},
	{name: "VMDK", qemu: "vmdk", bytes: "COWD"},
	{name: "VMDK", qemu: "vmdk", bytes: "# Disk DescriptorFile"},
	{name: "VHDX", qemu: "vhdx", bytes: "vhdxfile"},
	{name: "VHD", qemu: "vpc", bytes: "conectix"},
	{name: "VDI", qemu: "vdi", at: 0x40, bytes: "\x7f\x10\xda\xbe"},
	{name: "Parallels", qemu: "parallels", bytes: "WithoutFreeSpace"},
	{name: "Parallels", qemu: "parallels", bytes: "WithouFreSpacExt"},
	{name: "gzip", unpack: "gunzip", bytes: "\x1f\x8b\x08"},
	{name: "xz", unpack: "unxz", bytes: "\xfd7zXZ\x00"},
	{name: "zstd", unpack: "unzstd", bytes: "\x28\xb5\x2f\xfd"},
	{name: "bzip2", unpack: "bunzip2", at: 4, bytes: "1AY&SY"},
	{name: "LUKS", qemu: "luks", bytes: "LUKS\xba\xbe"},
	// A fixed VHD is a raw disk with a footer: only the guess stumbles on it.
	{name: "VHD", qemu: "vpc", at: -512, bytes: "conectix"},
}

// magicSize is how many of the first bytes it takes to recognise a format.
const magicSize = 512

// probe names the format that the first (or last) bytes of r show, or nil.
func probe(r io.ReaderAt, size int64) (*magic, error) {
	head := make([]byte, magicSize)
	n, err := r.ReadAt(head, 0)
	if err != nil && err != io.EOF {
		return nil, err
	}
	tail := make([]byte, 8)
	if size >= 512 {
		if _, err := r.ReadAt(tail, size-512); err != nil && err != io.EOF {
			return nil, err
		}
	}
	return match(head[:n], tail), nil
}

// match is the format that the first bytes, and those 512 from the end, show.
func match(head, tail []byte) *magic {
	for i, m := range magics {
		if m.at < 0 && bytes.HasPrefix(tail, []byte(m.bytes)) {
			return &magics[i]
		}
		if m.at >= 0 && int64(len(head)) > m.at && bytes.HasPrefix(head[m.at:], []byte(m.bytes)) {
			return &magics[i]
		}
	}
	return nil
}

// decide settles the format from what was asked for and what was seen.
//
// A disk format is never taken as raw, not even on request: what reads the
// image later might probe it and follow the names in its header to files of the
// host (CVE-2024-32498, CVE-2026-24708). An archive, a LUKS disk or a disk with
// a VHD footer is harmless as raw, and taken as such when that is asked for.
func decide(asked string, seen *magic) (string, error) {
	switch {
	case seen == nil && asked == "qcow2":
		return "", errors.New("it is not qcow2 (no qcow2 magic); give its real format or none")
	case seen == nil:
		return "raw", nil
	case seen.name == "qcow2" && asked == "raw":
		return "", errors.New("it is qcow2, not raw; import it as qcow2")
	case seen.name == "qcow2":
		return "qcow2", nil
	case asked == "raw" && (seen.qemu == "" || seen.name == "LUKS" || seen.at < 0):
		return "raw", nil
	case seen.qemu == "":
		return "", fmt.Errorf("it is compressed with %s; unpack it first: %s FILE", seen.name, seen.unpack)
	case seen.name == "LUKS":
		return "", errors.New("it is LUKS-encrypted; decrypt it first, or import it as raw if the guest is to open it")
	default:
		return "", fmt.Errorf("it is %s; convert it first: qemu-img convert -f %s -O qcow2 FILE NEW.qcow2", seen.name, seen.qemu)
	}
}

// stamp is what tells one state of a file from another without reading it.
type stamp struct {
	size         int64
	mtime, ctime syscall.Timespec
}

func takeStamp(f *os.File) (stamp, error) {
	var st syscall.Stat_t
	if err := syscall.Fstat(int(f.Fd()), &st); err != nil {
		return stamp{}, &os.PathError{Op: "fstat", Path: f.Name(), Err: err}
	}
	// The size of a block device is not in its inode.
	size, err := f.Seek(0, io.SeekEnd)
	return stamp{size: size, mtime: st.Mtim, ctime: st.Ctim}, err
}

// tick is longer than the grain of the kernel's file times.
const tick = 20 * time.Millisecond

// firstStamp takes the stamp that later ones are compared with. File times move
// in steps of some milliseconds: two writes in one step look like one, so a
// file written this instant is left to age by a step.
func firstStamp(f *os.File) (stamp, error) {
	st, err := takeStamp(f)
	if err != nil {
		return st, err
	}
	if age := time.Since(time.Unix(st.ctime.Unix())); age >= 0 && age < tick {
		time.Sleep(tick)
		return takeStamp(f)
	}
	return st, nil
}

// unchanged fails if the file is not as it was when it was opened. A change of
// a block device's content leaves no trace in its inode and goes unnoticed.
func (s *Source) unchanged() error {
	now, err := takeStamp(s.f)
	if err != nil {
		return err
	}
	if now != s.stamp {
		return s.refuse("changed while being imported; import it again when nothing writes to it")
	}
	if s.below != nil {
		return s.below.unchanged()
	}
	return nil
}
