// Settling: where a machine is after a migration that nobody has watched to its end.

package migrate

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/vmdisk/vmdisk/domain"
	"libvirt.org/go/libvirt"
)

// settleTimeout is how long two hosts may take to hand a guest over.
const settleTimeout = 30 * time.Second

// Settle finds out where a machine is whose migration has failed, or was begun by a
// client that died, and makes an end of it: while the hosts are at it, it waits for
// them; what then is left of the machine on the other host is removed. The destination
// is asked first: if its guest runs there, the migration has happened, whatever the
// source says, and else it has not. Only if both run is it the source's: that one went
// on because the destination had not, which then came too late. Should it run on
// neither, that is [ErrLost], and moved says where it is defined.
//
// A host that does not answer is an error: only with both can it be known. A migration
// that has stood still for patience is aborted, and is an error, too, if that does not
// end it.
func Settle(ctx context.Context, source, dest *libvirt.Connect, vm string, patience time.Duration) (moved bool, err error) {
	begin, moves := time.Now(), newPulse(patience)
	for {
		there, err := inspect(ctx, dest, vm)
		if err != nil {
			return false, err
		}
		if there.runs() { // the source's QEMU may not answer any more
			if here, err := glance(ctx, source, vm); err == nil && !here.runs() {
				return true, leave(ctx, source, vm, here)
			}
		}
		here, err := inspect(ctx, source, vm)
		if err != nil {
			return false, err
		}
		// A guest that waits for the end of a move waits for nobody if the other host
		// knows nothing of it any more.
		late := time.Since(begin) > settleTimeout
		switch {
		case there.runs() && !here.runs(), there.is() && !there.waits && !here.is():
			return true, leave(ctx, source, vm, here)
		case here.job:
			begin = time.Now()
			if err := moves.goOn(ctx, source, vm); err != nil {
				return false, err
			}
		case here.waits && there.is():
			if late {
				return false, fmt.Errorf("%s is paused on both hosts, for a move that does not end: %w", vm, ErrUnknown)
			}
		case here.waits:
			return false, domain.Resume(ctx, source, vm)
		case here.is():
			return false, leave(ctx, dest, vm, there)
		case there.is() && !late: // its memory may have come
		default:
			return lost(ctx, dest, vm, here, there)
		}
		select {
		case <-ctx.Done():
			return false, ctx.Err()
		case <-time.After(watchEvery):
		}
	}
}

// goOn aborts a migration that stands still, and gives up on one that does so twice as
// long.
func (p *pulse) goOn(ctx context.Context, source *libvirt.Connect, vm string) error {
	s, err := domain.JobStats(ctx, source, vm)
	if p.stopped(s) {
		err = domain.AbortJob(ctx, source, vm)
	}
	switch {
	case domain.Lost(source):
		return err
	case time.Since(p.since) > 2*p.patience:
		return fmt.Errorf("%w: %w", ErrUnknown, hangs("migration of "+vm, p.patience))
	}
	return nil // it may have ended meanwhile
}

// lost makes an end of a machine that runs on neither host.
func lost(ctx context.Context, dest *libvirt.Connect, vm string, here, there side) (moved bool, err error) {
	why := ErrLost
	if here.ended || there.ended {
		why = ErrEnded
	}
	if here.defined {
		return false, errors.Join(leave(ctx, dest, vm, there), why)
	}
	return there.defined, errors.Join(domain.Destroy(ctx, dest, vm), why)
}

// side is a machine as one host knows it.
type side struct {
	defined bool
	qemu    bool
	job     bool // a migration is under way
	waits   bool // it is paused until the end of one
	stopped bool // it is paused for whatever reason
	ended   bool // its guest has powered off
}

func (s side) is() bool   { return s.defined && s.qemu }
func (s side) runs() bool { return s.is() && !s.stopped }

func inspect(ctx context.Context, conn *libvirt.Connect, vm string) (side, error) {
	return look(domain.Inspect(ctx, conn, vm))
}

func glance(ctx context.Context, conn *libvirt.Connect, vm string) (side, error) {
	return look(domain.Glance(ctx, conn, vm))
}

func look(c domain.Condition, err error) (side, error) {
	if errors.Is(err, domain.ErrNotFound) {
		return side{}, nil
	}
	return side{defined: true, qemu: c.Running, job: c.Job, stopped: c.Paused, ended: c.Ended,
		waits: c.Moving && c.Paused && !c.Job}, err
}

// leave removes what a host has of a machine that is on the other.
func leave(ctx context.Context, conn *libvirt.Connect, vm string, is side) error {
	if !is.defined {
		return nil
	}
	if err := domain.Destroy(ctx, conn, vm); err != nil {
		return err
	}
	return domain.Undefine(ctx, conn, vm)
}
