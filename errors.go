// What a workflow's failure looks like to a caller.

package vmdisk

import (
	"errors"
	"fmt"
	"strings"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/domain"
	"github.com/vmdisk/vmdisk/migrate"
)

// Error is a workflow that failed. It matches with [errors.Is] whatever its
// cause matches: the sentinels of packages disk, domain, secret and migrate,
// libvirt's and Ceph's own errors, and context.Canceled.
type Error struct {
	Op     string   // the workflow: "boot"
	Object string   // what it was about: the VM's name
	Step   string   // the step that failed, or "" if none had begun
	Err    error    // why
	Left   []string // what was made and could not be undone, by name
	State  string   // what is so now: "web1 runs on compute1 as before", or ""
	Next   string   // the command to run next, or ""
}

// Message says what was being done and why it failed, without Left, State and Next.
func (e *Error) Message() string {
	what, why := e.Op+" "+e.Object+": ", e.Err.Error()
	if strings.HasPrefix(why, what) {
		return why // the cause says it in the same words
	}
	return what + why
}

// Error gives it all on one line, without Next.
func (e *Error) Error() string {
	s := e.Message()
	if len(e.Left) > 0 {
		s += " (left behind: " + strings.Join(e.Left, "; ") + ")"
	}
	if e.State != "" {
		s += "; " + e.State
	}
	return s
}

// Unwrap is the cause.
func (e *Error) Unwrap() error { return e.Err }

// failed wraps the cause of a workflow's failure; nil stays nil.
func failed(op, object string, err error) error {
	var own *Error
	if err == nil || errors.As(err, &own) {
		return err
	}
	return &Error{Op: op, Object: object, Err: err, Next: next(object, err)}
}

// next is what to type after an error, where that is known.
func next(object string, err error) string {
	var answers *answersError
	var behind *behindError
	var other *otherWay
	var hinders *hindered
	var held *disk.HeldError
	var byHand *disk.LockError
	var stalled *migrate.StallError
	var unfilled *unfilledError
	switch {
	case errors.As(err, &unfilled):
		return "to bring the rest into Ceph:  vmdisk fill " + unfilled.vm
	case errors.As(err, &byHand):
		return fmt.Sprintf("if nobody needs the lock any more:  rbd lock rm %s '%s' %s", byHand.Image, byHand.ID, byHand.Client)
	case errors.As(err, &other):
		return other.next()
	case errors.As(err, &hinders):
		return hinders.cure
	case errors.As(err, &behind):
		return "on " + behind.host + ":  vmdisk repair " + behind.vm
	case errors.Is(err, migrate.ErrInterrupted):
		return "to fetch the rest:  vmdisk migrate --recover " + object
	case errors.As(err, &stalled):
		return "to bring it to an end:  the same command with " + stalled.Next()
	case errors.Is(err, migrate.ErrUnknown):
		return "vmdisk repair " + object
	case errors.As(err, &answers):
		return answers.next()
	case errors.Is(err, errThere):
		return "there:  vmdisk repair"
	case errors.Is(err, errUnasked):
		return "name its libvirt's URI (--from qemu+ssh://HOST/system), or go on without: --force"
	case errors.As(err, &held) && held.Operation.Kind == "fill":
		return "to end that:  vmdisk fill --abort " + held.Operation.Object
	case errors.As(err, &held):
		return "to wait for that:  the same command with --wait"
	case errors.Is(err, errElsewhere):
		return "what is it doing?  vmdisk why " + object
	case errors.Is(err, domain.ErrPending):
		return "run the same command again, or: vmdisk stop " + object
	case errors.Is(err, domain.ErrNoSlot):
		return "detach another, or give its definition more slots (pcie-root-port) while it is off"
	case errors.Is(err, disk.ErrNotProtected):
		var e *disk.Error
		if errors.As(err, &e) {
			src, _, _ := strings.Cut(e.Object, " to ")
			return "rbd snap protect " + src
		}
	case errors.Is(err, disk.ErrNotRaw):
		var e *disk.Error
		if errors.As(err, &e) {
			return reimport(e.Object)
		}
	case errors.Is(err, domain.ErrUnreachable):
		var e *domain.Error
		if errors.As(err, &e) {
			return "does it answer others?  virsh -c " + e.Object + " hostname"
		}
	}
	return ""
}

// reimport is how to make a bootable image of one that holds a qcow2 or the like.
func reimport(image string) string {
	image, _, _ = strings.Cut(strings.TrimPrefix(image, disk.ImagePool+"/"), "@")
	return fmt.Sprintf("import it again:  vmdisk image export '%s' FILE --format raw && vmdisk image import FILE --name NEW\n"+
		"  or, if it is raw after all, say so:  --format raw", image)
}

// gone takes "not there" for done.
func gone(err error) error {
	if errors.Is(err, disk.ErrNotFound) {
		return nil
	}
	return err
}

// badInput is an error about what the caller asked for.
func badInput(format string, args ...any) error {
	return &disk.Error{Kind: disk.ErrInvalid, Reason: fmt.Sprintf(format, args...)}
}
