// Calls into libvirt that end. A daemon that is frozen, or one that waits for a
// frozen QEMU, answers no call, and a call cannot be interrupted: it is left to
// itself, and its connection with it.

package domain

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"time"
	"weak"

	"libvirt.org/go/libvirt"
)

// callTimeout is how long a call may take on a connection without a time-out of its
// own. A QEMU that opens its disks can take seconds.
const callTimeout = 60 * time.Second

// grace is what a call that itself heeds its context may take longer than that:
// libvirt waits 5 s for a guest to let go of a device.
const grace = 7 * time.Second

// What is known of connections, by weak pointers, so that none is kept for it.
var (
	limits sync.Map // how long a call may take
	lost   sync.Map // a call has not returned
)

// limit notes how long a call on a connection may take; 0 is 60 s.
func limit(conn *libvirt.Connect, d time.Duration) {
	if d > 0 {
		note(&limits, conn, d)
	}
}

func note(what *sync.Map, conn *libvirt.Connect, value any) {
	key := weak.Make(conn)
	what.Store(key, value)
	runtime.AddCleanup(conn, func(key weak.Pointer[libvirt.Connect]) { what.Delete(key) }, key)
}

// Lost says that a call on a connection has not returned in time. The connection
// must not be used any more, not even be closed, which would wait too.
func Lost(conn *libvirt.Connect) bool {
	_, is := lost.Load(weak.Make(conn))
	return is
}

// Forsake says that a call on a connection has not returned that was not made through
// this package; see [Lost].
func Forsake(conn *libvirt.Connect) { note(&lost, conn, true) }

// call runs f and waits for it as long as the connection's time-out and ctx's
// deadline allow, whichever is later. After that it is [ErrTimeout], the outcome is
// unknown, and the connection [Lost]. A cancellation does not end it: what f has
// begun would go on. f must share nothing with the caller but what it returns.
func call[T any](ctx context.Context, conn *libvirt.Connect, op, object string, f func() (T, error)) (T, error) {
	var none T
	if Lost(conn) {
		return none, &Error{Op: op, Object: object, Kind: ErrTimeout, Reason: "libvirt has not answered an earlier call"}
	}
	d := callTimeout
	if own, ok := limits.Load(weak.Make(conn)); ok {
		d = own.(time.Duration)
	}
	if deadline, ok := ctx.Deadline(); ok {
		d = max(d, time.Until(deadline)+grace)
	}
	type result struct {
		value T
		err   error
	}
	done := make(chan result, 1)
	go func() {
		value, err := f()
		done <- result{value, err}
	}()
	late := time.NewTimer(d)
	defer late.Stop()
	select {
	case r := <-done:
		return r.value, r.err
	case <-late.C:
		note(&lost, conn, true)
		return none, &Error{Op: op, Object: object, Kind: ErrTimeout,
			Reason: fmt.Sprintf("libvirt, or the QEMU that it waits for, has not answered within %v", d.Round(time.Millisecond))}
	}
}

// Hostname is the name of a connection's host.
//
// Similar to: virsh hostname.
func Hostname(ctx context.Context, conn *libvirt.Connect) (string, error) {
	return call(ctx, conn, "read name of", "host", func() (string, error) {
		name, err := conn.GetHostname()
		return name, wrap("read name of", "host", err)
	})
}
