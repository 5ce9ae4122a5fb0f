// A crossing: a disk of a running machine from one place to another, while the guest
// writes it.
//
// QEMU copies it and then keeps both sides alike. The guest stands still for a moment
// while definition and QEMU change over: what one side has then, the other has too, and
// both have it on stable storage. So whatever dies in that moment, the machine can go on
// with either, and never are both written that a later start could take for the disk.

package vmdisk

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/domain"
	"github.com/vmdisk/vmdisk/migrate"
	"libvirt.org/go/libvirt"
)

const (
	// crossPoll is how often QEMU is asked how far it is.
	crossPoll = 50 * time.Millisecond
	// fullPoll is how often the cluster is asked whether it is full.
	fullPoll = time.Second
	// standTime is how long the guest may stand still for the last of a copy.
	standTime = 10 * time.Second
)

// crossing is what the steps share.
type crossing struct {
	*session
	h          *Host
	op         string
	vm         domain.Info
	target     string
	from, to   string // for people
	bandwidth  int64
	shallow    bool                                  // it has what is below the machine's file
	into       *disk.Cluster                         // into which it goes, or nil
	pool       string                                // of that
	data       int64                                 // bytes that it may take there
	xml        func(context.Context) (string, error) // the destination's
	there      action                                // defines the machine with it
	back       action                                // and as it was
	settle     action                                // finds out where it is, and sees to the rest
	stood      *time.Duration
	stoodSince time.Time
}

// steps of which the pivot is the point of no return.
func (c *crossing) steps() []step {
	abort := action{Verb: actAbortCopy, VM: c.vm.UUID, Name: c.vm.Name, Host: c.host, To: c.target}
	if c.into != nil {
		abort.Image, abort.In = c.settle.Image, c.settle.In
	}
	var resume []action
	if c.settle.Paused = c.vm.State == "paused"; !c.settle.Paused {
		resume = []action{{Verb: actResume, VM: c.vm.UUID, Name: c.vm.Name, Host: c.host}}
	}
	settle := []action{c.settle}
	return []step{
		{name: "begin", detail: says(c.target + " → " + c.to), do: c.begin, back: []action{abort}},
		{name: "copy", detail: says(c.from), do: c.copy},
		{name: "pause", detail: says(c.vm.Name), do: c.pause, back: resume},
		{name: "define", detail: says(c.target + " in " + c.to), do: c.define, back: []action{c.back},
			begun: func() bool { return true }}, // it may fail between two changes
		{name: "pivot", detail: says(c.target + " to " + c.to), do: c.pivot, commit: true, on: settle},
		{name: "resume", detail: c.said, do: c.resume, on: settle},
	}
}

func (c *crossing) begin(ctx context.Context) error {
	xml, err := c.xml(ctx)
	if err != nil {
		return err
	}
	return domain.StartCopy(ctx, c.conn, domain.BlockCopy{VM: c.vm.UUID, Target: c.target, To: xml, Shallow: c.shallow, Bandwidth: c.bandwidth})
}

// copy waits until both sides are alike.
func (c *crossing) copy(ctx context.Context) error {
	show := c.h.progress(c.op, c.vm.Name, "copy")
	last, moved, asked := int64(-1), time.Now(), time.Now()
	patience := c.h.patience() + domain.CopyPause(c.bandwidth)
	for {
		done, total, err := domain.CopyProgress(ctx, c.conn, c.vm.UUID, c.target)
		if err != nil {
			return c.failure(ctx, err)
		}
		if total > 0 && done >= total {
			return nil
		}
		show(done, total)
		if done != last {
			last, moved = done, time.Now()
		}
		if time.Since(asked) > fullPoll {
			asked = time.Now()
			if err := c.roomLeft(ctx, total-done); err != nil {
				return err
			}
		}
		if time.Since(moved) > patience {
			return &disk.Error{Op: "copy", Object: c.from, Reason: fmt.Sprintf("nothing has moved for %v", patience), Kind: migrate.ErrStalled}
		}
		if err := sleep(ctx, crossPoll); err != nil {
			return err
		}
	}
}

// lowWater is the room in a pool at which a copy is given up that may need more: one
// that is full takes nothing of what QEMU has sent, and QEMU waits for that.
const lowWater = 128 << 20

// roomLeft is an error if the pool is full, or about to be with what is still to come.
func (c *crossing) roomLeft(ctx context.Context, left int64) error {
	if c.into == nil {
		return nil
	}
	if err := full(ctx, c.into, c.pool); err != nil {
		return err
	}
	has, err := c.into.Capacity(ctx, c.pool)
	if err != nil { // it is for the copy to fail
		return nil
	}
	if room := has.Pools[0].Available; room < min(lowWater, left, c.data) {
		return &disk.Error{Op: "copy to", Object: "pool " + c.pool, Kind: disk.ErrNoSpace, Reason: "has only room for " + disk.FormatSize(room)}
	}
	return nil
}

// full is an error if a pool takes nothing more.
func full(ctx context.Context, cluster *disk.Cluster, pool string) error {
	pools, err := cluster.FullPools(ctx)
	if err == nil && slices.Contains(pools, pool) {
		err = &disk.Error{Op: "write to", Object: "pool " + pool, Kind: disk.ErrNoSpace, Reason: "is full"}
	}
	if errors.Is(err, disk.ErrNoSpace) {
		return err
	}
	return nil
}

// abortCopy ends the copy of a disk into the image n, unless that would have the guest
// wait for room in its pool.
func (h *Host) abortCopy(ctx context.Context, on *session, conn *libvirt.Connect, n disk.Name, a action) error {
	if n.Pool != "" {
		if err := full(ctx, on.cluster, n.Pool); err != nil {
			return fmt.Errorf("the guest would wait for room if the copy was aborted now: %w", err)
		}
	}
	return domain.AbortCopy(ctx, conn, a.VM, a.To)
}

// recorded writes the place of a machine's disk that has just been defined into the
// machine's record, before the guest can go on: whoever starts the machine elsewhere,
// because its host is gone, is not to take what the disk was before.
func (h *Host) recorded(ctx context.Context, on *session, conn *libvirt.Connect, a action, err error) error {
	if err != nil {
		return err
	}
	return h.keepRecord(ctx, &session{cluster: on.cluster, conn: conn, host: a.Host}, a.VM)
}

// failure says why QEMU gave a copy up, as far as that can be said.
func (c *crossing) failure(ctx context.Context, err error) error {
	if !errors.Is(err, domain.ErrNotFound) {
		return err
	}
	if err := c.roomLeft(ctx, 0); err != nil {
		return err
	}
	return fmt.Errorf("QEMU has given the copy of %s up; why, its log knows: %w", c.target, errStopped)
}

var errStopped = errors.New("the block job is gone")

// pause stops the guest and waits until both sides are alike again.
func (c *crossing) pause(ctx context.Context) error {
	if err := c.roomLeft(ctx, 0); err != nil { // to stop would be to wait
		return err
	}
	if c.into != nil && c.into != c.cluster { // as it would for one that does not answer
		if _, err := c.into.FullPools(ctx); err != nil {
			return err
		}
	}
	c.stoodSince = time.Now()
	if !c.settle.Paused {
		if err := domain.Suspend(ctx, c.conn, c.vm.UUID); err != nil {
			return err
		}
	}
	waiting, cancel := context.WithTimeout(ctx, standTime)
	defer cancel()
	for {
		done, total, err := domain.CopyProgress(ctx, c.conn, c.vm.UUID, c.target)
		if err == nil && done == total {
			if err = domain.Flush(waiting, c.conn, c.vm.UUID); err == nil {
				return nil
			}
			return errors.Join(err, c.wake(ctx))
		}
		if err == nil {
			err = sleep(waiting, crossPoll/10)
		}
		if err != nil {
			return errors.Join(c.wake(ctx), c.failure(ctx, err))
		}
	}
}

// wake lets the guest go on that pause has stopped.
func (c *crossing) wake(ctx context.Context) error {
	if c.settle.Paused {
		return nil
	}
	err := domain.Resume(context.WithoutCancel(ctx), c.conn, c.vm.UUID)
	*c.stood = time.Since(c.stoodSince)
	return err
}

func (c *crossing) define(ctx context.Context) error { return c.h.act(ctx, c.session, c.there) }

// pivot has QEMU go on with the copy. What it says of that is checked.
func (c *crossing) pivot(ctx context.Context) error {
	waiting, cancel := context.WithTimeout(context.WithoutCancel(ctx), standTime)
	defer cancel()
	err := domain.Pivot(waiting, c.conn, c.vm.UUID, c.target)
	if err == nil || errors.Is(err, domain.ErrTimeout) {
		return err
	}
	if now, lookErr := domain.Relocation(ctx, c.conn, c.vm.UUID, c.target); lookErr == nil && c.settle.arrived(now.Live) {
		return nil
	}
	return err
}

func (c *crossing) resume(ctx context.Context) error { return c.wake(ctx) }

func (c *crossing) said() string {
	if *c.stood == 0 {
		return c.vm.Name
	}
	return fmt.Sprintf("%s, which stood still for %d ms", c.vm.Name, c.stood.Milliseconds())
}

// settlesCrossing are the verbs that make an end of one.
var settlesCrossing = []verb{actSettleAdopt, actSettleEject, actSettleMove}

// arrived says whether a disk is where a crossing was to bring it.
func (a action) arrived(d domain.DiskInfo) bool {
	if a.Verb == actSettleEject {
		return d.Source == a.File
	}
	return d.Pool+"/"+d.Image == a.Image && (a.In == nil || confOf(d) == a.In.Conf)
}

// settleCrossing makes an end of a crossing whose process died in the pivot: QEMU is
// asked on which side it is, and the definition, the guest and what is left follow that.
// If there is no QEMU any more, both sides are alike, and the definition says which.
func (h *Host) settleCrossing(ctx context.Context, on *session, conn *libvirt.Connect, a action) error {
	now, err := domain.Relocation(ctx, conn, a.VM, a.To)
	if errors.Is(err, domain.ErrNotFound) { // undefined, or without that disk, since
		return nil
	}
	if err != nil {
		return err
	}
	is := now.Kept
	if now.Running {
		is = now.Live
	}
	arrived := a.arrived(is)
	if !arrived && now.Copying {
		abort := a
		if abort.Verb = actAbortCopy; a.Verb == actSettleEject {
			abort.Image = ""
		}
		if err := h.act(ctx, on, abort); err != nil {
			return err
		}
	}
	if a.Verb == actSettleMove && !arrived && is.Pool+"/"+is.Image != a.Was { // it has gone on since
		return nil
	}
	settled, loser := a.sides(arrived)
	if err := h.act(ctx, on, settled); err != nil {
		return err
	}
	if now.Paused && !a.Paused {
		if err := domain.Resume(ctx, conn, a.VM); err != nil {
			return err
		}
	}
	if loser.Verb == "" {
		return nil
	}
	return h.act(ctx, on, loser)
}

// sides are what defines the machine with the side that a crossing ended on, and what
// removes the other, if that is to go.
func (a action) sides(arrived bool) (settled, loser action) {
	settled, loser = a, a
	switch {
	case a.Verb == actSettleMove:
		settled.Verb, loser.Verb = actPutInImage, actDropMoved
		if arrived {
			loser.Image, loser.In = a.Was, nil
		} else {
			settled.Image, settled.In, settled.Also = a.Was, nil, a.In
		}
	case arrived == (a.Verb == actSettleAdopt):
		settled.Verb, loser = actPutInCeph, action{}
		if !arrived && !a.Keep {
			loser = a
			loser.Verb = actRemoveFile
		}
	default:
		settled.Verb, loser.Verb = actPutInFile, actRemove
	}
	return settled, loser
}
