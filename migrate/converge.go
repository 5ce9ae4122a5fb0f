// Seeing a migration to its end: it is told how far it is, helped when it gets no nearer
// to its end, and aborted when that does not help, when nothing moves, or when the
// caller's context ends.

package migrate

import (
	"context"
	"fmt"
	"time"

	"github.com/vmdisk/vmdisk/domain"
	"libvirt.org/go/libvirt"
)

// watchEvery is how often progress is asked for and reported.
const watchEvery = 100 * time.Millisecond

// watch is a migration that is being watched.
type watch struct {
	Move
	begin time.Time
	moves *pulse
	nears *nearing
	down  *downtime
	last  Progress

	aborted time.Time // since when it is to end
	why     error     // nil if the caller wants it
	paused  bool      // the guest, by the policy
	told    bool      // something that need not be told twice
	broken  time.Time // since when the source says that post-copy is interrupted
}

// until blocks until the migration is over. Libvirt is asked to abort one again and
// again, because a job that has not begun yet cannot be aborted, but not for ever. If
// the source does not answer there is no use in that: libvirt asks a QEMU one thing at
// a time.
func (w *watch) until(ctx context.Context, done <-chan error) error {
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	after := context.WithoutCancel(ctx)
	for {
		select {
		case err := <-done:
			if w.why != nil && err != nil {
				err = stalled(w.why, err)
			}
			return err
		case <-tick.C:
		}
		s, err := domain.JobStats(after, w.Watch, w.VM) // an error if it ended between two calls
		if err == nil {
			var c domain.Condition
			if c, err = domain.Glance(after, w.Watch, w.VM); err == nil {
				w.report(s, c)
			}
		}
		if !domain.Lost(w.Watch) {
			err = w.act(ctx, s)
		}
		switch {
		case domain.Lost(w.Watch):
		case !w.broken.IsZero() && time.Since(w.broken) > settleTimeout: // the destination's QEMU may itself wait for a page
			err = fmt.Errorf("%w, whose QEMU does not answer", ErrInterrupted)
		case !w.aborted.IsZero() && time.Since(w.aborted) > w.moves.patience:
			err = hangs("migration of "+w.VM, w.moves.patience)
		default:
			continue
		}
		domain.Forsake(w.Source)
		return err
	}
}

// report tells how far it is. Without a job it is as good as over, or has not begun.
func (w *watch) report(s *libvirt.DomainJobInfo, c domain.Condition) {
	p := Progress{Phase: Setup}
	if s != nil {
		p = progress(s, c)
	} else if w.last.Phase != "" {
		p.Phase = w.last.Phase
	}
	p.Elapsed = time.Since(w.begin)
	w.last = p
	switch {
	case !c.Broken:
		w.broken = time.Time{}
	case w.broken.IsZero():
		w.broken = time.Now()
	}
	if w.Report != nil && (s != nil || p.Phase == Setup) {
		w.Report(p)
	}
}

// act does what is to be done about a migration, now that it is as s says, or nil. Its
// error is that of an abort.
func (w *watch) act(ctx context.Context, s *libvirt.DomainJobInfo) error {
	after := context.WithoutCancel(ctx)
	limit := w.Policy.Timeout
	switch {
	case w.last.Phase == Postcopy:
		return w.postcopy(ctx, s)
	case !w.aborted.IsZero():
		return domain.AbortJob(after, w.Watch, w.VM) // fails as long as there is nothing to abort
	case ctx.Err() != nil:
		return w.abort(after, nil)
	case w.moves.stopped(s):
		return w.abort(after, fmt.Errorf("%w: nothing has moved for %v, so it was aborted", ErrStalled, w.moves.patience.Round(time.Millisecond)))
	case limit > 0 && time.Since(w.begin) > limit:
		return w.abort(after, w.stall(limit, true))
	case s != nil && s.MemIteration > 0: // before that there is nothing that could come nearer
		return w.converge(after, s)
	}
	return nil
}

func (w *watch) abort(ctx context.Context, why error) error {
	w.aborted, w.why = time.Now(), why
	return domain.AbortJob(ctx, w.Watch, w.VM)
}

func (w *watch) stall(after time.Duration, timeout bool) error {
	p := w.last
	return &StallError{After: after, Timeout: timeout, Remaining: p.Remaining, Dirty: p.Dirty, Rate: p.Rate, Policy: w.Policy}
}

// postcopy waits for one that cannot be aborted any more; if nothing moves in it, it is
// interrupted.
func (w *watch) postcopy(ctx context.Context, s *libvirt.DomainJobInfo) error {
	stopped := w.moves.stopped(s)
	switch {
	case !w.broken.IsZero():
		w.aborted = time.Time{} // as it was to be
	case !stopped:
		w.aborted, w.why = time.Time{}, nil // it was too late
	case w.aborted.IsZero():
		w.aborted, w.why = time.Now(), fmt.Errorf("%w: nothing has moved for %v", ErrStalled, w.moves.patience.Round(time.Millisecond))
		return domain.BreakPostcopy(context.WithoutCancel(ctx), w.Watch, w.VM)
	}
	if ctx.Err() != nil && !w.told {
		w.told = true
		w.notice("%s runs on the destination already, in post-copy, which cannot be aborted: waiting for its end", w.VM)
	}
	return nil
}

// converge helps a migration that gets no nearer to its end: the guest may stand still
// for longer, as long as is allowed; then the policy has its say; and then it ends.
func (w *watch) converge(ctx context.Context, s *libvirt.DomainJobInfo) error {
	stuck := w.nears.take(s)
	if w.Policy.Postcopy && s.MemIteration > 1 && domain.StartPostcopy(ctx, w.Watch, w.VM) == nil {
		return nil
	}
	waited, limit := time.Since(w.nears.since), w.Policy.stallAfter(s.MemTotal)
	if late := waited > limit/2; (stuck || late) && !w.down.last() {
		if w.down.raise(w.nears.most, s.MemBps); late {
			w.down.step = downtimeSteps
		}
		return domain.SetMaxDowntime(ctx, w.Watch, w.VM, w.down.now())
	}
	if waited <= limit {
		return nil
	}
	switch on := w.Policy.onStall(); {
	case on == StallPostcopy && waited < 2*limit:
		err := domain.StartPostcopy(ctx, w.Watch, w.VM)
		if err == nil {
			w.notice("%s got no nearer to its end for %v: switched to post-copy", w.VM, limit.Round(time.Second))
		}
		return err
	case on == StallPause && !w.paused:
		if err := domain.Suspend(ctx, w.Watch, w.VM); err != nil {
			return err
		}
		w.paused = true
		w.nears.again()
		w.notice("%s got no nearer to its end for %v: its guest is paused until all is copied", w.VM, limit.Round(time.Second))
		return nil
	}
	return w.abort(ctx, w.stall(waited, false))
}

func (w *watch) notice(format string, args ...any) {
	if w.Notice != nil {
		w.Notice(fmt.Sprintf(format, args...))
	}
}
