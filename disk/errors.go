// The errors of this package, and where errno becomes one of them.

package disk

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"
)

// What can be wrong. Every error of this package matches exactly one of them,
// or none when Ceph failed in a way that has no name here.
var (
	ErrNotFound     = errors.New("not found")
	ErrExists       = errors.New("already exists")
	ErrInUse        = errors.New("in use")
	ErrHasClones    = errors.New("has clones")
	ErrHasSnapshots = errors.New("has snapshots")
	ErrNotProtected = errors.New("snapshot is not protected")
	ErrNotRaw       = errors.New("is not raw")
	ErrInvalid      = errors.New("invalid")
	ErrNoSpace      = errors.New("no space left")
	ErrTimeout      = errors.New("timed out")
	ErrPermission   = errors.New("permission denied")
	ErrCorrupt      = errors.New("corrupt") // a checksum is wrong
	ErrFenced       = errors.New("fenced: the cluster takes nothing more from this process")
)

// Error says what was being done to which object and why it failed.
type Error struct {
	Op      string   // what was being done: "clone", "resize"
	Object  string   // to what: "images/debian-12@snap"
	Kind    error    // one of this package's sentinels, or nil
	Err     error    // the native error, or nil
	Reason  string   // more than Kind can say, or ""
	Holders []string // who is in the way, one a line: watchers, clones, machines
}

// Error gives it all on one line.
func (e *Error) Error() string {
	var b strings.Builder
	if e.Op != "" {
		b.WriteString(e.Op + " ")
	}
	b.WriteString(e.Object)
	switch {
	case e.Object == "":
		b.WriteString(e.Reason)
	case e.Reason != "":
		b.WriteString(": " + e.Reason)
	case e.Kind != nil:
		b.WriteString(": " + e.Kind.Error())
	}
	if e.Err != nil && e.Kind == nil {
		b.WriteString(": " + e.Err.Error())
	}
	if len(e.Holders) > 0 {
		b.WriteString(" (" + strings.Join(e.Holders, "; ") + ")")
	}
	return b.String()
}

// Unwrap makes both the sentinel and the native error match.
func (e *Error) Unwrap() []error {
	var all []error
	if e.Kind != nil {
		all = append(all, e.Kind)
	}
	if e.Err != nil {
		all = append(all, e.Err)
	}
	return all
}

// kinds maps what librados and librbd return (as negative errno) to sentinels.
var kinds = map[syscall.Errno]error{
	syscall.ENOENT:    ErrNotFound,
	syscall.EEXIST:    ErrExists,
	syscall.EBUSY:     ErrInUse,
	syscall.ESTALE:    ErrInUse, // changed by somebody else between two steps of librbd's
	syscall.ENOTEMPTY: ErrHasSnapshots,
	syscall.EINVAL:    ErrInvalid,
	syscall.ENOSPC:    ErrNoSpace,
	syscall.EDQUOT:    ErrNoSpace,
	syscall.ETIMEDOUT: ErrTimeout,
	syscall.EPERM:     ErrPermission,
	syscall.EACCES:    ErrPermission,
	syscall.ESHUTDOWN: ErrFenced,
}

// errno is the error number in an error of go-ceph or of the copy engine, or 0.
func errno(err error) syscall.Errno {
	var plain syscall.Errno
	if errors.As(err, &plain) {
		return plain
	}
	var coded interface{ ErrorCode() int }
	if !errors.As(err, &coded) {
		return 0
	}
	if n := coded.ErrorCode(); n < 0 {
		return syscall.Errno(-n)
	}
	return syscall.Errno(coded.ErrorCode())
}

// wrap translates a native error; nil stays nil, and what is already
// translated, or is the caller's cancellation, passes unchanged.
func wrap(op, object string, err error) error {
	var own *Error
	if err == nil || errors.As(err, &own) ||
		errors.Is(err, context.Canceled) || errors.Is(err, ErrBadSource) {
		return err
	}
	return translate(op, object, err)
}

// translate makes a native error ours.
func translate(op, object string, err error) *Error {
	e := &Error{Op: op, Object: object, Err: err, Kind: kinds[errno(err)]}
	if errors.Is(err, context.DeadlineExceeded) {
		e.Kind = ErrTimeout
	}
	return e
}

// is says whether an error, native or ours, is of a kind.
func is(err, kind error) bool {
	return errors.Is(err, kind) || errors.Is(kinds[errno(err)], kind)
}

// invalid is an [ErrInvalid] with its reason.
func invalid(object, format string, args ...any) error {
	return &Error{Object: object, Kind: ErrInvalid, Reason: fmt.Sprintf(format, args...)}
}

// ignore turns the error that means "already so" into nil.
func ignore(err, kind error) error {
	if is(err, kind) {
		return nil
	}
	return err
}
