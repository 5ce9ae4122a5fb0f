// One at a time: two of vmdisk that change one image at once, where librbd would
// tell both that they did it. A snapshot that is asked for twice is reported as
// made twice while the image is open elsewhere, because librbd takes the second for
// the first repeated.

package disk

import (
	"context"
	"encoding/binary"
	"time"

	"github.com/ceph/go-ceph/rados"
	"github.com/google/uuid"
)

const (
	// turnLock is a lock of RADOS on the image's header, beside librbd's own, which
	// is "rbd_lock". It goes with the image.
	turnLock = "vmdisk"

	// turnExpires is when the lock of one that died ends. No step under it may take
	// longer.
	turnExpires = 2 * time.Minute

	// turnWait is how long somebody else's turn is waited for.
	turnWait = 15 * time.Second
)

// inTurn runs f while nobody else is in an inTurn of the image. What takes longer
// than a moment does not belong into it. If another's turn does not end in time it
// is [ErrInUse].
func (c *Cluster) inTurn(ctx context.Context, op string, n Name, f func() error) error {
	n.Snap = ""
	return c.pool(ctx, n.Pool, func(io *rados.IOContext) error {
		id, err := imageID(io, n)
		if err != nil {
			return err
		}
		header, cookie := "rbd_header."+id, uuid.NewString()
		if err := takeTurn(ctx, io, op, n, header, cookie); err != nil {
			return err
		}
		defer func() { _, _ = io.Unlock(header, turnLock, cookie) }() // else it expires
		return f()
	})
}

func takeTurn(ctx context.Context, io *rados.IOContext, op string, n Name, header, cookie string) error {
	for begin := time.Now(); ; {
		err := wrap(op, n.String(), lockExisting(io, header, cookie))
		if !is(err, ErrInUse) {
			return err
		}
		if time.Since(begin) > turnWait {
			return &Error{Op: op, Object: n.String(), Kind: ErrInUse, Err: err, Reason: "somebody else is at work on it"}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// lockExisting is rados_lock_exclusive that does not make the object: a header that
// is gone must not come back empty. The arguments are those of cls_lock's lock_op.
func lockExisting(io *rados.IOContext, object, cookie string) error {
	const exclusive = 1
	in := append(appendStrings(nil, turnLock), exclusive)
	in = appendStrings(in, cookie, "", "vmdisk") // tag, description
	in = binary.LittleEndian.AppendUint32(in, uint32(turnExpires.Seconds()))
	in = append(in, 0, 0, 0, 0, 0) // nanoseconds, flags
	in = append(binary.LittleEndian.AppendUint32([]byte{1, 1}, uint32(len(in))), in...)
	op := rados.CreateWriteOp()
	defer op.Release()
	op.AssertExists()
	op.Exec("lock", "lock", in)
	return op.Operate(io, object, rados.OperationNoFlag)
}
