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
// In post-copy its memory is on both: as long as both QEMUs live, neither is touched, and
// one that was interrupted is [ErrInterrupted]. If one of the two is gone, so is what it
// had: that is [ErrLost], and the other is ended, whose memory is worth nothing.
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
		if there.runs() && !there.postcopy { // the source's QEMU may not answer any more
			if here, err := glance(ctx, source, vm); err == nil && !here.runs() && !here.postcopy {
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
		case here.postcopy || there.postcopy:
			if over, moved, err := moves.halfway(ctx, source, dest, vm, here, there, late); over {
				return moved, err
			}
			if here.job && !here.broken {
				begin = time.Now()
			}
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

// halfway makes an end of a machine that is in post-copy on one host at least, if there is
// one to be made now.
func (p *pulse) halfway(ctx context.Context, source, dest *libvirt.Connect, vm string, here, there side, late bool) (over, moved bool, err error) {
	switch {
	case there.runs() && !there.postcopy: // all has come
		if late {
			return true, true, leave(ctx, source, vm, here)
		}
	case here.is() && there.is():
		if here.broken && (there.broken || late) {
			return true, false, ErrInterrupted
		}
		if here.job && !here.broken {
			err := p.interrupt(ctx, source, vm)
			return err != nil, false, err
		}
		if late {
			return true, false, fmt.Errorf("%s is in post-copy, which does not go on: %w", vm, ErrUnknown)
		}
	case here.is() && (here.broken || late): // it has not what the destination's guest has written since
		err := domain.Destroy(ctx, source, vm)
		if err == nil {
			_, err = lost(ctx, dest, vm, here, there)
		}
		return true, false, err
	case there.is() && there.broken && (here.crashed || late): // pages are missing
		moved, err := lost(ctx, dest, vm, here, there)
		return true, moved, err
	case late:
		return true, false, fmt.Errorf("%s was in post-copy and is on one host alone: %w", vm, ErrUnknown)
	}
	return false, false, nil
}

// interrupt interrupts a post-copy in which nothing moves, and gives up on one for which
// that does not end it.
func (p *pulse) interrupt(ctx context.Context, source *libvirt.Connect, vm string) error {
	s, err := domain.JobStats(ctx, source, vm)
	if p.stopped(s) {
		err = domain.BreakPostcopy(ctx, source, vm)
	}
	return p.given(source, vm, err)
}

// goOn aborts a migration that stands still, and gives up on one that does so twice as
// long.
func (p *pulse) goOn(ctx context.Context, source *libvirt.Connect, vm string) error {
	s, err := domain.JobStats(ctx, source, vm)
	if p.stopped(s) {
		err = domain.AbortJob(ctx, source, vm)
	}
	return p.given(source, vm, err)
}

// given says whether to give up on a migration, of which err is what was last heard.
func (p *pulse) given(source *libvirt.Connect, vm string, err error) error {
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
	crashed bool // its QEMU has not ended by itself
	// Its memory is on both hosts, and may be on its way no more.
	postcopy, broken bool
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
	return side{defined: true, qemu: c.Running, job: c.Job, stopped: c.Paused, ended: c.Ended, crashed: c.Crashed,
		waits: c.Moving && c.Paused && !c.Job && !c.Postcopy, postcopy: c.Postcopy, broken: c.Broken}, err
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
