// Which machine a volume belongs to: a record beside the volume that is taken
// and given back atomically, so that a volume is never given to two machines,
// not even to one that is shut off and would open it at its next start.

package disk

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/ceph/go-ceph/rados"
)

// ownerPrefix is followed by the image's name. The record is an object of its
// own, because metadata of the image would be inherited by its clones.
const ownerPrefix = "vmdisk.owner."

// Owner is the machine that a volume is attached to.
type Owner struct {
	VM    string    `json:"vm"`
	UUID  string    `json:"uuid"`
	Host  string    `json:"host"` // where it was when it took the volume or last moved
	Since time.Time `json:"since"`
}

func (o Owner) String() string {
	return fmt.Sprintf("attached to VM %s on %s, since %s", o.VM, o.Host, o.Since.Local().Format("2006-01-02 15:04"))
}

// Owner is the machine that a volume is attached to; [ErrNotFound] if to none.
func (c *Cluster) Owner(ctx context.Context, n Name) (Owner, error) {
	var o Owner
	err := c.pool(ctx, n.Pool, func(io *rados.IOContext) error {
		_, err := readOwner(io, n, &o)
		return err
	})
	return o, err
}

// readOwner also returns the record's bytes, to compare when it is replaced.
func readOwner(io *rados.IOContext, n Name, o *Owner) (raw []byte, err error) {
	buf := make([]byte, 4096)
	read, err := io.Read(ownerPrefix+n.Image, buf, 0)
	if err != nil {
		return nil, wrap("read owner of", n.String(), err)
	}
	return buf[:read], wrap("read owner of", n.String(), json.Unmarshal(buf[:read], o))
}

// Claim records that a volume belongs to a machine. It is atomic: of two claims
// for two machines one is [ErrInUse] and names the other's machine. A machine
// that owns the volume already keeps it; made is then false, so that a caller
// that undoes its work does not give away what it did not take.
func (c *Cluster) Claim(ctx context.Context, n Name, o Owner) (made bool, err error) {
	o.Since = time.Now().UTC().Truncate(time.Second)
	data, err := json.Marshal(o)
	if err != nil {
		return false, err
	}
	err = c.pool(ctx, n.Pool, func(io *rados.IOContext) error {
		op := rados.CreateWriteOp()
		defer op.Release()
		op.Create(rados.CreateExclusive)
		op.WriteFull(data)
		err := wrap("claim", n.String(), op.Operate(io, ownerPrefix+n.Image, rados.OperationNoFlag))
		if made = err == nil; made || ignore(err, ErrExists) != nil {
			return err
		}
		var has Owner
		if _, err := readOwner(io, n, &has); err != nil {
			return err
		}
		if has.UUID != o.UUID {
			return &Error{Op: "attach", Object: n.String(), Kind: ErrInUse, Holders: []string{has.String()}}
		}
		return nil
	})
	return made, err
}

// Moved notes the host that a volume's machine is on now. It changes nothing if
// the volume does not belong to that machine.
func (c *Cluster) Moved(ctx context.Context, n Name, uuid, host string) error {
	return c.amend(ctx, n, uuid, func(op *rados.WriteOp, o Owner) error {
		o.Host = host
		data, err := json.Marshal(o)
		op.WriteFull(data)
		return err
	})
}

// Release gives a volume back that a machine owns; if it does not own it, that
// is fine and nothing changes.
func (c *Cluster) Release(ctx context.Context, n Name, uuid string) error {
	return c.amend(ctx, n, uuid, func(op *rados.WriteOp, _ Owner) error {
		op.Remove()
		return nil
	})
}

// amend changes the record of a machine's volume, unless somebody else changes
// it first.
func (c *Cluster) amend(ctx context.Context, n Name, uuid string, change func(*rados.WriteOp, Owner) error) error {
	return c.pool(ctx, n.Pool, func(io *rados.IOContext) error {
		var has Owner
		raw, err := readOwner(io, n, &has)
		if err != nil || has.UUID != uuid {
			return ignore(err, ErrNotFound)
		}
		op := rados.CreateWriteOp()
		defer op.Release()
		compare := op.CmpExt(raw, 0)
		if err := change(op, has); err != nil {
			return wrap("release", n.String(), err)
		}
		err = op.Operate(io, ownerPrefix+n.Image, rados.OperationNoFlag)
		if err != nil && compare.Result < 0 && !is(err, ErrNotFound) {
			return inUse("release", n, nil)
		}
		return ignore(wrap("release", n.String(), err), ErrNotFound)
	})
}
