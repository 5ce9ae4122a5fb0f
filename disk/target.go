// A file that an image is exported to: nobody sees it before it is whole.

package disk

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// Target is a file in the making. Follow [CreateTarget] by [Cluster.Export] and
// Name, or by Abandon. Until it is named it has no name, so that nothing is left of
// it even if the process is killed. It is for one goroutine.
type Target struct {
	path   string
	format string
	force  bool
	f      *os.File
	temp   string // its name, where the file system cannot do without
}

// CreateTarget begins a file of format "raw" or "qcow2" in path's directory. A path
// that exists is [ErrExists] unless force is set, and one that is no regular file
// [ErrInvalid].
func CreateTarget(path, format string, force bool) (*Target, error) {
	if format != formatRaw && format != "qcow2" {
		return nil, invalid(path, "format %q is not known; use raw or qcow2", format)
	}
	t := &Target{path: path, format: format, force: force}
	if err := t.checkPath(); err != nil {
		return nil, err
	}
	return t, t.open()
}

func (t *Target) checkPath() error {
	info, err := os.Stat(t.path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return t.fail("look at", err)
	case !info.Mode().IsRegular():
		return invalid(t.path, "is no regular file (%s)", info.Mode().Type())
	case !t.force:
		return &Error{Op: "create", Object: t.path, Kind: ErrExists}
	}
	return nil
}

// open makes a file without a name, or with one that says what it is.
func (t *Target) open() (err error) {
	dir, base := filepath.Split(t.path)
	if dir == "" {
		dir = "."
	}
	fd, err := unix.Open(dir, unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o666)
	if err == nil {
		t.f = os.NewFile(uintptr(fd), t.path)
		return nil
	}
	if !errors.Is(err, unix.EOPNOTSUPP) && !errors.Is(err, unix.EISDIR) {
		return t.fail("create a file in", &fs.PathError{Op: "open", Path: dir, Err: err})
	}
	t.temp = filepath.Join(dir, fmt.Sprintf(".%s.exporting.%d", base, os.Getpid()))
	t.f, err = os.OpenFile(t.temp, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o666)
	return t.fail("create", err)
}

// Name waits until the file is on stable storage and gives it its name. It is
// [ErrExists] if somebody else took the name meanwhile, unless force was set.
func (t *Target) Name() error {
	if err := t.f.Sync(); err != nil {
		return t.fail("write", err)
	}
	if err := t.link(); err != nil {
		return t.fail("name", err)
	}
	return t.fail("close", t.f.Close())
}

func (t *Target) link() error {
	from, to := t.temp, t.path
	if t.force { // only rename replaces, and it wants a name
		if from == "" {
			from = filepath.Join(filepath.Dir(t.path), fmt.Sprintf(".%s.exporting.%d", filepath.Base(t.path), os.Getpid()))
			if err := t.linkUnnamed(from); err != nil {
				return err
			}
			t.temp = from
		}
		return os.Rename(from, to)
	}
	if from == "" {
		return t.linkUnnamed(to)
	}
	if err := os.Link(from, to); err != nil {
		return err
	}
	return os.Remove(from)
}

func (t *Target) linkUnnamed(to string) error {
	fd := fmt.Sprintf("/proc/self/fd/%d", t.f.Fd())
	return unix.Linkat(unix.AT_FDCWD, fd, unix.AT_FDCWD, to, unix.AT_SYMLINK_FOLLOW)
}

// Abandon removes a file that was not named; one that was is left alone.
func (t *Target) Abandon() error {
	err := t.f.Close()
	if errors.Is(err, fs.ErrClosed) {
		err = nil
	}
	if t.temp != "" {
		if gone := os.Remove(t.temp); !errors.Is(gone, fs.ErrNotExist) {
			err = errors.Join(err, gone)
		}
	}
	return t.fail("remove", err)
}

// fail is an error about the file; a full file system is [ErrNoSpace].
func (t *Target) fail(op string, err error) error {
	if err == nil {
		return nil
	}
	e := translate(op, t.path, err)
	var number syscall.Errno
	if e.Kind != nil && errors.As(err, &number) {
		e.Reason = number.Error()
	}
	return e
}

// layout is how an image's bytes are laid out in a file or a stream. It is given
// them from the first to the last.
type layout interface {
	// write puts p at off; what is between two writes is zeros.
	write(p []byte, off int64) error
	// end is called when all is written.
	end() error
}

// layout is that of the target's format for an image of size bytes.
func (t *Target) layout(size int64) (layout, error) {
	if t.format == "qcow2" {
		return newQcow2File(t.f, size), nil
	}
	return &rawFile{f: t.f}, t.f.Truncate(size)
}

// rawFile is a sparse file: what is not written, or zeros, takes no space.
type rawFile struct {
	f      *os.File
	pieces []span
}

func (r *rawFile) write(p []byte, off int64) error {
	r.pieces = nonzero(r.pieces[:0], p, span{0, int64(len(p))})
	for _, s := range r.pieces {
		if _, err := r.f.WriteAt(p[s.off:s.off+s.n], off+s.off); err != nil {
			return err
		}
	}
	return nil
}

func (r *rawFile) end() error { return nil }

// FileUsed is how many bytes of disk a file takes up.
//
// Similar to: du.
func FileUsed(path string) (int64, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return 0, &fs.PathError{Op: "stat", Path: path, Err: err}
	}
	return st.Blocks * sectorSize, nil
}
