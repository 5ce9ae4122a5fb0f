// The errors of this package, and where libvirt's codes become one of them.

package domain

import (
	"context"
	"errors"
	"fmt"
	"regexp"

	"libvirt.org/go/libvirt"
)

// What can be wrong.
var (
	ErrNotFound    = errors.New("not found")
	ErrExists      = errors.New("already exists")
	ErrNotRunning  = errors.New("not running")
	ErrInvalid     = errors.New("invalid")
	ErrTargetInUse = errors.New("target is in use")
	ErrPending     = errors.New("pending: the guest has not let go yet")
	ErrTimeout     = errors.New("timed out")
	ErrUnreachable = errors.New("cannot be reached")
	ErrNoSlot      = errors.New("has no free slot")
	ErrImmovable   = errors.New("libvirt would not move it")
)

// Error says what was being done to which domain and why it failed.
type Error struct {
	Op     string // what was being done: "define", "attach vdb to"
	Object string // to what: the machine's name, a connection's URI
	Kind   error  // one of this package's sentinels, or nil
	Err    error  // libvirt's error, or nil
	Reason string // more than Kind and Err can say, or ""
}

// Error gives it all on one line.
func (e *Error) Error() string {
	s := e.Object
	if e.Op != "" {
		s = e.Op + " " + s
	}
	switch {
	case e.Op == "" && e.Reason == "" && errors.Is(e.Kind, ErrNotFound):
		return s // the object says it all: "no VM web1 on this host"
	case e.Reason != "":
		return s + ": " + e.Reason
	case e.Err != nil && (e.Kind == nil || errors.Is(e.Kind, ErrInvalid) || errors.Is(e.Kind, ErrUnreachable)):
		return s + ": " + Message(e.Err)
	}
	return s + ": " + e.Kind.Error()
}

// Unwrap makes both the sentinel and libvirt's error match.
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

// Message is what libvirt said, without its numbers.
func Message(err error) string {
	text := err.Error()
	var own libvirt.Error
	if errors.As(err, &own) && own.Message != "" {
		text = own.Message
	}
	return blockdev.ReplaceAllString(text, "")
}

// blockdev is what QEMU repeats of its command line before it says what is wrong
// with a disk, and what libvirt puts before that.
var blockdev = regexp.MustCompile(`(internal error: [^:]*: )?(\S+Z \S+: )?-blockdev \{.*\}: `)

// kinds maps libvirt's error codes to sentinels.
var kinds = map[libvirt.ErrorNumber]error{
	libvirt.ERR_NO_DOMAIN:          ErrNotFound,
	libvirt.ERR_DOM_EXIST:          ErrExists,
	libvirt.ERR_XML_ERROR:          ErrInvalid,
	libvirt.ERR_XML_DETAIL:         ErrInvalid,
	libvirt.ERR_XML_INVALID_SCHEMA: ErrInvalid,
	libvirt.ERR_OPERATION_TIMEOUT:  ErrTimeout,
	libvirt.ERR_NO_CONNECT:         ErrUnreachable,
	libvirt.ERR_DEVICE_MISSING:     ErrNotFound,
	libvirt.ERR_NO_NETWORK:         ErrNotFound,
}

// wrap translates a libvirt error; nil stays nil, and what is already
// translated, or is the caller's cancellation, passes unchanged.
func wrap(op, object string, err error) error {
	var own *Error
	if err == nil || errors.As(err, &own) || errors.Is(err, context.Canceled) {
		return err
	}
	e := &Error{Op: op, Object: object, Err: err}
	var native libvirt.Error
	if errors.As(err, &native) {
		e.Kind = kinds[native.Code]
	}
	if errors.Is(err, context.DeadlineExceeded) {
		e.Kind = ErrTimeout
	}
	return e
}

// invalid is an [ErrInvalid] with its reason.
func invalid(object, format string, args ...any) error {
	return &Error{Object: object, Kind: ErrInvalid, Reason: fmt.Sprintf(format, args...)}
}
