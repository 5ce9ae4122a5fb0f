// An empty file that a running machine's disk is copied to by QEMU.

package disk

import (
	"errors"
	"io/fs"
	"os"
	"syscall"
)

// CreateLocal makes a file for a disk of size bytes, empty. If it is to replace one that
// is there, it gets that one's owner and mode; else that is [ErrExists].
//
// Similar to: qemu-img create.
func CreateLocal(path, format string, size int64, replace bool) error {
	t, err := CreateTarget(path, format, replace)
	if err != nil {
		return err
	}
	l, err := t.layout(size)
	if err == nil {
		err = l.end()
	}
	if err == nil {
		err = t.Like(path)
	}
	if err != nil {
		return errors.Join(t.fail("write", err), t.Abandon())
	}
	if err := t.Name(); err != nil {
		return errors.Join(err, t.Abandon())
	}
	return nil
}

// Like gives a file in the making the owner and mode of another, if there is one. One
// that is new is for nobody but its owner: it is a machine's disk.
func (t *Target) Like(path string) error {
	fi, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return t.f.Chmod(0o600)
	}
	if err != nil {
		return err
	}
	if err := t.f.Chmod(fi.Mode().Perm()); err != nil {
		return err
	}
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !ok {
		return nil
	}
	return t.f.Chown(int(st.Uid), int(st.Gid))
}

// Unused is [ErrInUse] if a QEMU has a file open, be it only as a backing file. One that
// is not there is an error.
func Unused(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if lockedAt(f, lockDoes+permRead) {
		return errLocked(path)
	}
	return lockImage(f)
}
