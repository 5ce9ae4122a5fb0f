// A machine's disk in files of its host: the file that the machine writes, and those
// below it, which a qcow2 names in its header. What a header names is opened only in
// folders where a machine's files may be: it could be any file of the host
// (CVE-2024-32498).

package disk

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// maxChain is how many files a disk may be in.
const maxChain = 64

// LocalOptions say how a machine's file is to be understood.
type LocalOptions struct {
	// Format is "raw" or "qcow2": what the machine's definition says.
	Format string
	// Allow are folders in which backing files may be, with all below them, besides the
	// disk's own folder and the _base beside that, where Nova has them.
	Allow []string
	// MaxSize is the largest virtual size accepted, in bytes; 0 is DefaultMaxSize.
	MaxSize int64
	// Rate is how many bytes a second are copied at most; 0 is no limit.
	Rate int64
}

// Layer is one file of a disk.
type Layer struct {
	Path   string `json:"path"` // without symbolic links
	Format string `json:"format"`
	Size   int64  `json:"size"` // virtual, in bytes
	Used   int64  `json:"used"` // bytes of disk that the file takes up
}

// Layers tells which files a machine's disk is in, that which the machine writes
// first, by their headers: somebody may be writing. Errors are as of [OpenLocal].
//
// Similar to: qemu-img info --backing-chain.
func Layers(path string, o LocalOptions) ([]Layer, error) {
	s, err := openChain(path, o, (*Source).glance)
	if err != nil {
		return nil, err
	}
	defer s.Close()
	var all []Layer
	for ; s != nil; s = s.below {
		used, err := FileUsed(s.path)
		if err != nil {
			return nil, err
		}
		all = append(all, Layer{Path: s.path, Format: s.format, Size: s.size, Used: used})
	}
	return all, nil
}

// OpenLocal opens and judges a machine's disk that nobody writes: the file as
// [OpenSource] does, and the files below it. While it is open no QEMU opens the disk
// for writing, by QEMU's own image locks; one that has it so already is [ErrInUse].
// Everything else that speaks against it is [ErrBadSource]: what OpenSource refuses; a
// backing file that is missing, that is in another folder than it may be, or whose
// format the header does not say; a chain that leads back to itself; internal
// snapshots, which would be lost. The caller closes the Source.
func OpenLocal(path string, o LocalOptions) (*Source, error) {
	return openChain(path, o, (*Source).still)
}

// still judges a file of which no QEMU makes anything else while it is open.
func (s *Source) still(o SourceOptions) error {
	if err := lockImage(s.f); err != nil {
		return err
	}
	return s.judge(o)
}

// openChain opens a file and those below it, each of which look judges.
func openChain(path string, o LocalOptions, look func(*Source, SourceOptions) error) (*Source, error) {
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return nil, err
	}
	folders, err := o.folders(real)
	if err != nil {
		return nil, err
	}
	so := SourceOptions{Format: o.Format, MaxSize: o.MaxSize, chained: true}
	if so.MaxSize <= 0 {
		so.MaxSize = DefaultMaxSize
	}
	top, err := openLayer(real, so, look)
	if err != nil {
		return nil, err
	}
	top.rate = o.Rate
	seen := []string{real}
	for s := top; s.qcow2 != nil && s.qcow2.backing != nil; s = s.below {
		if real, err = s.follow(folders, seen); err == nil {
			seen = append(seen, real)
			so.Format = s.qcow2.backing.format
			s.below, err = openLayer(real, so, look)
		}
		if err != nil {
			top.Close()
			return nil, err
		}
	}
	return top, nil
}

func openLayer(path string, o SourceOptions, look func(*Source, SourceOptions) error) (*Source, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	s := &Source{f: f, path: path}
	if err = s.regular(); err == nil {
		err = look(s, o)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return s, nil
}

// regular refuses what is no file: a device can be another machine's.
func (s *Source) regular() error {
	fi, err := s.f.Stat()
	if err == nil && !fi.Mode().IsRegular() {
		err = s.refuse("is no regular file (%s)", fi.Mode().Type())
	}
	return err
}

// folders are those in which backing files of the disk may be.
func (o LocalOptions) folders(path string) ([]string, error) {
	dir := filepath.Dir(path)
	all := []string{dir}
	base := filepath.Join(filepath.Dir(dir), "_base")
	for i, f := range append([]string{base}, o.Allow...) {
		real, err := filepath.EvalSymlinks(f)
		if i == 0 && errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err == nil {
			real, err = filepath.Abs(real)
		}
		if err != nil {
			return nil, err
		}
		all = append(all, real)
	}
	return all, nil
}

// follow is the path of the file below, if it may be opened.
func (s *Source) follow(folders, seen []string) (string, error) {
	b := s.qcow2.backing
	switch name := b.name; {
	case strings.HasPrefix(name, "json:") || protocol(name):
		return "", s.refuse("its backing file %.256q is no plain file", name)
	case b.format != formatRaw && b.format != "qcow2":
		return "", s.refuse("the format of its backing file %.256q is %q, not raw or qcow2; to say it:  qemu-img rebase -u -b BACKING -F FORMAT FILE", name, b.format)
	case len(seen) >= maxChain:
		return "", s.refuse("its chain has more than %d files", maxChain)
	}
	path := b.name
	if !filepath.IsAbs(path) {
		path = filepath.Join(filepath.Dir(s.path), path)
	}
	real, err := filepath.EvalSymlinks(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "", s.refuse("its backing file %.256q is missing", path)
	case err != nil:
		return "", s.refuse("its backing file: %w", err)
	case slices.Contains(seen, real):
		return "", s.refuse("its chain of backing files leads back to %.256q", real)
	case !slices.ContainsFunc(folders, func(dir string) bool { return strings.HasPrefix(real, strings.TrimSuffix(dir, "/")+"/") }):
		return "", s.refuse("its backing file %.256q is in none of the allowed folders (%s); if it may be read:  --allow %s",
			real, strings.Join(folders, ", "), filepath.Dir(real))
	}
	return real, nil
}

// protocol says whether QEMU takes a name for one with a protocol, as nbd:host:port.
func protocol(name string) bool {
	before, _, found := strings.Cut(name, ":")
	return found && !strings.Contains(before, "/")
}

// glance judges the headers alone: what they lead to may be changing.
func (s *Source) glance(o SourceOptions) (err error) {
	if s.stamp, err = takeStamp(s.f); err != nil {
		return err
	}
	magic, err := probe(s.f, s.stamp.size)
	if err != nil {
		return s.refuse("read the first bytes: %w", err)
	}
	if s.format, err = decide(o.Format, magic); err != nil {
		return s.refuse("%w", err)
	}
	s.size = s.stamp.size
	if s.format == "qcow2" {
		s.qcow2 = &qcow2{f: s.f, fileSize: s.stamp.size, chained: o.chained}
		if _, err := s.qcow2.readHeader(o.MaxSize); err != nil {
			return s.refuse("%w", err)
		}
		s.size = s.qcow2.size
	}
	switch {
	case s.size == 0:
		return s.refuse("the file is empty")
	case s.size > o.MaxSize:
		return s.refuse("virtual size %d is above the limit of %d bytes", s.size, o.MaxSize)
	}
	return nil
}

// WholeSectors is how large a guest sees a disk of size bytes: in whole sectors.
func WholeSectors(size int64) int64 { return (size + sectorSize - 1) / sectorSize * sectorSize }

// errLocked is a disk that a QEMU writes.
func errLocked(path string) error {
	return &Error{Op: "open", Object: path, Kind: ErrInUse,
		Reason: fmt.Sprintf("is in use by another process (it has QEMU's lock); which?  fuser -v '%s'", path)}
}
