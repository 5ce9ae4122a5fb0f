// Does who owns an image's lock respond? librbd asks the owner for what only the
// owner may do, waits for as long as its watch lasts, and then takes the lock from it:
// from a QEMU, too, that was only frozen.

package disk

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/ceph/go-ceph/rados"
)

// respondTime is how long the owner of a lock may take to say that it is there.
const respondTime = 5 * time.Second

// ownerResponds makes sure that an image is not locked by somebody who lives, or may
// live, and does not answer: that is [ErrTimeout], and the lock stays. One that is
// fenced, or was no machine's and watches no more, loses it to librbd.
func (c *Cluster) ownerResponds(ctx context.Context, op string, n Name) error {
	var owner, entity string
	var watches, answers bool
	err := c.pool(ctx, n.Pool, func(io *rados.IOContext) error {
		id, err := imageID(io, n)
		if err != nil {
			return wrap(op, n.String(), err)
		}
		info, err := lockers(io, n, id)
		if err != nil || info.NumLockers == 0 {
			return err
		}
		owner, entity = bareAddr(info.Addrs[0]), info.Clients[0]
		// To librbd an empty message says that the header has changed, which does no harm.
		acks, silent, err := io.NotifyWithTimeout("rbd_header."+id, nil, min(respondTime, c.wait))
		named := func(client rados.NotifierID) bool { return fmt.Sprintf("client.%d", client) == entity }
		answers = slices.ContainsFunc(acks, func(a rados.NotifyAck) bool { return named(a.NotifierID) })
		watches = slices.ContainsFunc(silent, func(s rados.NotifyTimeout) bool { return named(s.NotifierID) })
		if len(silent) > 0 {
			err = ignore(err, ErrTimeout)
		}
		return wrap(op, n.String(), err)
	})
	if err != nil || owner == "" || answers || c.IsSelf(owner) {
		return err
	}
	if !watches {
		if lost, err := c.mayLose(ctx, owner, n.Pool); err != nil || lost {
			return err
		}
	}
	return &Error{Op: op, Object: n.String(), Kind: ErrTimeout, Holders: []string{owner},
		Reason: "the owner of its lock does not respond, and is not known to be dead"}
}

// mayLose says whether a client that does not watch an image any more may lose its
// lock: it is fenced, or is no QEMU.
func (c *Cluster) mayLose(ctx context.Context, owner, pool string) (bool, error) {
	fences, err := c.Fences(ctx)
	if err != nil || slices.ContainsFunc(fences, func(f Fenced) bool { return f.Addr == owner }) {
		return err == nil, err
	}
	for _, records := range []string{VMPool, pool} {
		all, err := c.Machines(ctx, records)
		if ignore(err, ErrNotFound) != nil {
			return false, err
		}
		if slices.ContainsFunc(all, func(m Machine) bool { return slices.Contains(m.Clients, owner) }) {
			return false, nil
		}
	}
	return true, nil
}
