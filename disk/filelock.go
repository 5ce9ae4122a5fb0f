// QEMU's image locks: what a process does with an image file it shows by locks on
// single bytes of it. Taking part keeps a machine from starting on a file that is
// being copied, and shows one that runs.
//
// Source: QEMU, block/file-posix.c, raw_apply_lock_bytes and raw_check_lock_bytes.

package disk

import (
	"errors"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// Permissions are bytes from lockDoes on, for what a process does with the image, and
// from lockForbids on, for what nobody else may.
const (
	lockDoes    = 100
	lockForbids = 200

	permRead   = 0
	permWrite  = 1
	permResize = 3
)

// lockImage reads an image that nobody may write, until the file is closed. One that
// somebody writes, or that nobody else may read, is [ErrInUse]. A file system without
// such locks is done without, as QEMU does.
func lockImage(f *os.File) error {
	for _, at := range []int64{lockDoes + permRead, lockForbids + permWrite, lockForbids + permResize} {
		l := byteLock(unix.F_RDLCK, at)
		err := unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &l)
		switch {
		case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EACCES):
			return errLocked(f.Name())
		case err != nil:
			return nil
		}
	}
	for _, at := range []int64{lockForbids + permRead, lockDoes + permWrite, lockDoes + permResize} {
		if lockedAt(f, at) {
			return errLocked(f.Name())
		}
	}
	return nil
}

// lockedAt says whether somebody else has a lock on a byte.
func lockedAt(f *os.File, at int64) bool {
	l := byteLock(unix.F_WRLCK, at)
	err := unix.FcntlFlock(f.Fd(), unix.F_OFD_GETLK, &l)
	return err == nil && l.Type != unix.F_UNLCK
}

func byteLock(kind int16, at int64) unix.Flock_t {
	return unix.Flock_t{Type: kind, Whence: io.SeekStart, Start: at, Len: 1}
}
