// The step runner: a workflow is a table of steps, run in order and undone in
// reverse.

package vmdisk

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/domain"
	"github.com/vmdisk/vmdisk/migrate"
)

// undoTimeout is how long all of a workflow's undoing may take. The caller's
// cancellation does not stop it, so something else must.
const undoTimeout = 2 * time.Minute

// step is one side effect and its reverse. Undo is nil where there is nothing to
// take back; it is called only if do succeeded, or timed out and may have: it
// must take "not there" for done.
type step struct {
	name   string
	detail func() string // what it works on or came to; asked before and after do
	do     func(context.Context) error
	// begun says whether a do that failed had changed something that is not taken
	// back; nil is that it had not, unless it timed out.
	begun func() bool
	undo  func(context.Context) error
	back  []action // takes it back, in this order; for the journal, in place of undo
	on    []action // finishes it, if do is interrupted at or after the commit
	// commit marks the point of no return: once it is done nothing is undone any
	// more, the steps after it only tidy up.
	commit bool
	// ends is a verb that no step before this one needs any more once it is done.
	ends verb
}

// errNothing is what an undo returns if there was nothing to take back: what is
// there, was there before.
var errNothing = errors.New("nothing to undo")

// phase is a moment of a step at which a test can make it fail.
type phase int

const (
	before phase = iota
	after
)

// run does the steps of a workflow that is not written down.
func (h *Host) run(ctx context.Context, op, object string, steps ...step) error {
	return h.runSteps(ctx, op, object, steps, nil)
}

// runSteps does the steps in order, each written down first. If one fails, or ctx
// ends between two, those that were done are undone, last first, unless one of them
// was the commit. The steps after the commit are not stopped by ctx.
func (h *Host) runSteps(ctx context.Context, op, object string, steps []step, o *opened) error {
	committed := o.forward()
	for i, s := range steps {
		err := h.do(ctx, op, object, s, o, func() error { return o.begin(ctx, i, committed || s.commit) })
		if err == nil && s.ends != "" {
			err = o.without(ctx, s.ends)
		}
		if s.commit && (err == nil || err.happened) {
			committed = true
			ctx = context.WithoutCancel(ctx)
		}
		if err == nil {
			continue
		}
		e := &Error{Op: op, Object: object, Step: s.name, Err: err.cause, Next: next(object, err.cause)}
		undo := steps[:i]
		switch {
		case errors.Is(err.cause, disk.ErrTaken), errors.Is(err.cause, disk.ErrFenced):
			return e // whoever took it over takes it back
		case o.giveUp(err.cause): // to undo it would take what does not answer
			e.Next = "it is in the journal; when Ceph answers again:  vmdisk repair"
			return e
		case committed:
			return o.stop(ctx, e, i > 0 || err.happened)
		case err.happened:
			undo = steps[:i+1]
		}
		back := o.turnBack(ctx)
		if errors.Is(back, disk.ErrTaken) || errors.Is(back, disk.ErrFenced) {
			e.Err = errors.Join(back, err.cause)
			return e
		}
		left, again := h.undo(ctx, op, object, undo, o)
		if e.Left = left; back != nil {
			e.Left, again = append(e.Left, back.Error()), true
		}
		return o.stop(ctx, e, again)
	}
	if err := o.end(ctx); err != nil {
		return &Error{Op: op, Object: object, Err: err}
	}
	return nil
}

// stepError is a step's failure, and whether its effect may be there.
type stepError struct {
	cause    error
	happened bool
}

func (h *Host) do(ctx context.Context, op, object string, s step, o *opened, begin func() error) *stepError {
	event := Event{Kind: Started, Op: op, Object: object, Step: s.name, Detail: s.describe()}
	h.emit(event)
	started := time.Now()
	err := h.attempt(ctx, op, s, o, begin)
	event.Elapsed = time.Since(started)
	event.Detail = s.describe()
	if err != nil {
		err.happened = err.happened || s.begun != nil && s.begun()
		event.Kind, event.Err = Failed, err.cause
		h.emit(event)
		return err
	}
	event.Kind = Done
	h.emit(event)
	return nil
}

func (h *Host) attempt(ctx context.Context, op string, s step, o *opened, begin func() error) *stepError {
	if err := ctx.Err(); err != nil {
		return &stepError{cause: err}
	}
	if err := begin(); err != nil {
		return &stepError{cause: err}
	}
	if err := h.inject(op, s.name, before); err != nil {
		return &stepError{cause: err}
	}
	if err := o.sure(ctx); err != nil {
		return &stepError{cause: err}
	}
	if err := s.do(ctx); err != nil {
		return &stepError{cause: err, happened: timedOut(err) || errors.Is(err, migrate.ErrUnknown) || errors.Is(err, migrate.ErrInterrupted)}
	}
	if err := h.inject(op, s.name, after); err != nil {
		return &stepError{cause: err, happened: true}
	}
	return nil
}

// timedOut says that something did not answer: what was asked of it may be done.
func timedOut(err error) bool {
	return errors.Is(err, disk.ErrTimeout) || errors.Is(err, domain.ErrTimeout)
}

// inject lets a test fail a step; see [Host.fault].
func (h *Host) inject(op, step string, when phase) error {
	if h.fault == nil {
		return nil
	}
	return h.fault(op, step, when)
}

// says is the detail of a step that knows it beforehand.
func says(detail string) func() string { return func() string { return detail } }

func (s step) describe() string {
	if s.detail == nil {
		return ""
	}
	return s.detail()
}

// undo takes the steps back and returns, by name, what it could not, and whether
// trying again is up to a repair: when a guest lets go of a volume is up to the guest.
func (h *Host) undo(ctx context.Context, op, object string, steps []step, o *opened) (left []string, again bool) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTimeout)
	defer cancel()
	for i := len(steps) - 1; i >= 0; i-- {
		s := steps[i]
		if s.undo == nil && len(s.back) == 0 {
			continue
		}
		event := Event{Kind: Undone, Op: op, Object: object, Step: s.name, Detail: s.describe()}
		begin := time.Now()
		err := h.takeBack(ctx, s, i, o)
		if errors.Is(err, errNothing) {
			continue
		}
		if err != nil {
			event.Kind, event.Err = UndoFailed, err
			left = append(left, fmt.Sprintf("%s %s: %v", s.name, s.describe(), err))
			again = again || !errors.Is(err, domain.ErrPending)
		}
		event.Elapsed = time.Since(begin)
		h.emit(event)
		if o.written() && timedOut(err) {
			break // the rest would wait too, and is in the journal
		}
	}
	return left, again
}

// takeBack undoes one step, as far as it is still to be undone.
func (h *Host) takeBack(ctx context.Context, s step, i int, o *opened) error {
	if s.undo != nil {
		return s.undo(ctx)
	}
	for _, a := range o.plan.Steps[i].Back {
		if err := h.act(ctx, o.on, a); err != nil {
			return err
		}
	}
	return nil
}
