// Removing an image of any kind: judged first, then done, never half-way by
// choice.

package disk

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/ceph/go-ceph/rados"
	"github.com/ceph/go-ceph/rbd"
)

// watchExpiry is how long the watch of a dead client can stand in the way of a
// removal: 30 s by osd_client_watch_timeout, and a little for the OSD to act.
const watchExpiry = 35 * time.Second

// removable says who is in the way of removing an image: clones, snapshots
// other than those in own, watchers, a lock taken by hand.
func (c *Cluster) removable(ctx context.Context, n Name, own ...string) error {
	cut, err := c.cutShort(ctx, n)
	if err != nil || cut {
		return err // librbd asks before it removes it
	}
	err = c.view(ctx, n, func(img *rbd.Image) error {
		if err := judge(img, n, "", own); err != nil {
			return err
		}
		by, err := watchers(img, n)
		if err == nil && len(by) > 0 {
			err = inUse("remove", n, by)
		}
		return err
	})
	if err != nil {
		return err
	}
	return c.notByHand(ctx, "remove", n)
}

// judge refuses to remove an image with clones, or with snapshots other than those
// in own. Where says where it is.
func judge(img *rbd.Image, n Name, where string, own []string) error {
	if err := refuseClones(img, n, where); err != nil {
		return err
	}
	snaps, err := snapshots(img, n)
	if err != nil {
		return err
	}
	snaps = slices.DeleteFunc(snaps, func(s string) bool { return slices.Contains(own, s) })
	if len(snaps) == 0 {
		return nil
	}
	for i, s := range snaps {
		snaps[i] = n.String() + "@" + s
	}
	return &Error{Op: "remove", Object: n.String() + where, Kind: ErrHasSnapshots, Holders: snaps}
}

func refuseClones(img *rbd.Image, n Name, where string) error {
	children, err := clones(img, n)
	if err == nil && len(children) > 0 {
		err = &Error{Op: "remove", Object: n.String() + where, Kind: ErrHasClones, Holders: children}
	}
	return err
}

// Removable says who is in the way of removing an image for good: its clones are
// [ErrHasClones], its snapshots [ErrHasSnapshots]. Those who have it open are not
// asked about; they may be about to go.
func (c *Cluster) Removable(ctx context.Context, n Name) error {
	return ignore(ignore(c.removable(ctx, n), ErrInUse), ErrNotFound)
}

// remove deletes an image that has no snapshots that anybody could name, what a
// removal that was cut off has left, and the names of one of which nothing else is
// left. If there is none of that, it is [ErrNotFound].
func (c *Cluster) remove(ctx context.Context, n Name) error {
	return c.pool(ctx, n.Pool, func(io *rados.IOContext) error {
		err := removeIn(io, n)
		if !is(err, ErrHasSnapshots) {
			return err
		}
		if err := c.edit(ctx, n, func(img *rbd.Image) error { return dropLeft(img, n) }); err != nil {
			return err
		}
		return wrap("remove", n.String(), rbd.RemoveImage(io, n.Image))
	})
}

// removeIn is remove of what has no snapshots at all.
func removeIn(io *rados.IOContext, n Name) error {
	id, h, err := headerOf(io, n)
	switch {
	case is(err, ErrNotFound):
		return removeRest(io, n)
	case err != nil:
		return err
	case h.migrating():
		return removeFilling(io, n, id)
	}
	return wrap("remove", n.String(), rbd.RemoveImage(io, n.Image))
}

// removeRest removes what is left of an image that is not there any more.
func removeRest(io *rados.IOContext, n Name) error {
	found, err := finishRemoval(io, n)
	if err != nil {
		return err
	}
	err = removeNames(io, n)
	if found {
		err = ignore(err, ErrNotFound)
	}
	return err
}

// waitUnused calls remove until what is to be removed is not open any more. A
// client that was just killed keeps its watch for up to 30 s.
func waitUnused(outer context.Context, remove func() error) error {
	ctx, cancel := context.WithTimeout(outer, watchExpiry)
	defer cancel()
	for {
		err := remove()
		var byHand *LockError // which nobody gives back by waiting
		if !errors.Is(err, ErrInUse) || errors.As(err, &byHand) {
			return err
		}
		select {
		case <-ctx.Done():
			if outer.Err() != nil {
				return outer.Err()
			}
			return err // says by whom, which ctx.Err() does not
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// imageNames lists the names of a pool's images that keep says yes to, sorted.
func (c *Cluster) imageNames(ctx context.Context, pool string, keep func(string) bool) ([]string, error) {
	var names []string
	err := c.pool(ctx, pool, func(io *rados.IOContext) (err error) {
		names, err = rbd.GetImageNames(io)
		return wrap("list", "pool "+pool, err)
	})
	names = slices.DeleteFunc(names, func(s string) bool { return !keep(s) })
	slices.Sort(names)
	return names, err
}
