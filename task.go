// Tasks: workflows that outlive their process. What a task is going to do is in the
// journal before it does it, and what it works on is leased to it.

package vmdisk

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/domain"
)

// leasePoll is how often a lease is asked for again that somebody else has.
const leasePoll = 200 * time.Millisecond

// task is a workflow as the journal knows it.
type task struct {
	op, object string
	on         *session
	pool       string   // in whose journal it is: that of what it makes or changes
	leases     []string // POOL/NAME of what nobody else may touch meanwhile
	vm         string   // UUID of the machine that it changes, whose record is kept
	// anywhere is a task for a machine that its record says another host has.
	anywhere bool
	// without is a host that does not answer any more. What a dead process was to do
	// with its libvirt is void; who could write there is fenced.
	without string
	// check is asked, under the leases, whether the work can be done. Nothing has
	// happened yet.
	check func(context.Context) error
	// steps are asked for after that, with their actions.
	steps func() []step
	// forward is a removal: interrupted, it is finished and not taken back.
	forward bool
	// stop is called if another process asks for it; nil is not to be stopped.
	stop func(by disk.Process)
	// route is a migration's.
	route *route
}

// onMachine is a task that changes a machine: nobody else does meanwhile, and its
// record is kept.
func (h *Host) onMachine(on *session, op string, vm domain.Info, also ...string) task {
	return task{
		op: op, object: vm.Name, on: on, pool: h.cfg.VMPool, vm: vm.UUID,
		leases: append([]string{h.cfg.VMPool + "/" + vm.UUID, h.cfg.VMPool + "/" + vm.Name}, also...),
	}
}

// steps are those that are known beforehand.
func steps(all ...step) func() []step { return func() []step { return all } }

// plan is what the journal holds of a task: enough for another process.
type plan struct {
	Steps     []planned `json:"steps"`
	Begun     int       `json:"begun"`     // so many of them
	Committed bool      `json:"committed"` // past the point of no return
	VM        string    `json:"vm,omitempty"`
	Route     *route    `json:"route,omitempty"`
}

// planned is a step in a plan.
type planned struct {
	Name string   `json:"name"`
	Back []action `json:"back,omitempty"` // what takes it back, in this order
	On   []action `json:"on,omitempty"`   // what finishes it
}

// perform runs a task: leased, checked, written down step by step, and out of the
// journal again when it has happened, or has not.
func (h *Host) perform(ctx context.Context, t task) error {
	o, err := h.lease(ctx, t)
	if err != nil {
		return failed(t.op, t.object, err)
	}
	if t.vm != "" && !t.anywhere && !o.unwritten {
		if err := h.belongsHere(ctx, t.on, t.vm); err != nil {
			return o.refuse(ctx, t, err)
		}
	}
	if t.check != nil {
		if err := t.check(ctx); err != nil {
			return o.refuse(ctx, t, err)
		}
	}
	steps := t.steps()
	o.plan.Committed = t.forward
	for _, s := range steps {
		o.plan.Steps = append(o.plan.Steps, planned{Name: s.name, Back: s.back, On: s.on})
	}
	return h.runSteps(ctx, t.op, t.object, steps, o)
}

// refuse ends a task that has not begun.
func (o *opened) refuse(ctx context.Context, t task, err error) error {
	if !o.giveUp(err) {
		err = errors.Join(err, o.end(ctx))
	}
	return failed(t.op, t.object, err)
}

// opened is a task's entry in the journal. A nil one is that of a workflow that is
// not written down.
type opened struct {
	disk.Operation
	h         *Host
	on        *session
	plan      plan
	seen      time.Time // when the journal last said that it is this process's
	touched   bool      // a step was begun, written down or not
	unwritten bool      // for a benchmark: no journal, no lease, no record
}

// lease writes a task into the journal and takes its leases. A holder that is dead
// is repaired first; one that lives is an error, or waited for.
func (h *Host) lease(ctx context.Context, t task) (*opened, error) {
	o := &opened{h: h, on: t.on, plan: plan{VM: t.vm, Route: t.route}, unwritten: h.unwritten}
	if o.unwritten {
		return o, nil
	}
	plan, err := json.Marshal(o.plan)
	if err != nil {
		return nil, err
	}
	told := false
	for {
		o.Operation = disk.Operation{Pool: t.pool, Kind: t.op, Object: t.object, Leases: t.leases, Plan: plan, Stop: t.stop}
		o.seen = time.Now().Round(0)
		err := t.on.cluster.Begin(ctx, &o.Operation)
		var held *disk.HeldError
		if !errors.As(err, &held) {
			return o, err
		}
		alive, aliveErr := t.on.cluster.Alive(ctx, &held.Operation)
		switch {
		case aliveErr != nil:
			return nil, aliveErr
		case alive == disk.Gone:
			if err := h.repairOperation(ctx, t.on, &held.Operation, t.without); err != nil && !raced(err) {
				return nil, err
			}
			continue
		case alive == disk.Present && !h.cfg.Wait:
			return nil, err
		}
		// A silent one is dead, or answers, within 30 s.
		if !told {
			h.emit(Event{Kind: Note, Op: t.op, Object: t.object, Detail: "waiting for " + held.Operation.String()})
			told = true
		}
		if err := sleep(ctx, leasePoll); err != nil {
			return nil, err
		}
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// forward says whether the task is finished, not taken back, from its start.
func (o *opened) forward() bool { return o != nil && o.plan.Committed }

// begin writes down that step i is begun, and whether it and what follows is to be
// finished if the process dies. A step that leaves nothing is not worth a write.
func (o *opened) begin(ctx context.Context, i int, committed bool) error {
	if o == nil {
		return nil
	}
	o.touched = true
	s := o.plan.Steps[i]
	if len(s.Back)+len(s.On) == 0 && o.plan.Committed == committed {
		return o.sure(ctx)
	}
	o.plan.Begun, o.plan.Committed = i+1, committed
	return o.write(ctx)
}

// without writes down that nothing that was begun needs a verb any more.
func (o *opened) without(ctx context.Context, ended verb) *stepError {
	if o == nil {
		return nil
	}
	for i, s := range o.plan.Steps[:o.plan.Begun] {
		o.plan.Steps[i].Back = slices.DeleteFunc(slices.Clone(s.Back), func(a action) bool { return a.Verb == ended })
	}
	if err := o.write(context.WithoutCancel(ctx)); err != nil {
		return &stepError{cause: err, happened: true}
	}
	return nil
}

// turnBack writes down that what was begun is being taken back.
func (o *opened) turnBack(ctx context.Context) error {
	ctx = context.WithoutCancel(ctx)
	if o == nil || !o.plan.Committed {
		return o.sure(ctx)
	}
	o.plan.Committed = false
	return o.write(ctx)
}

// doubtAfter is how long this process takes itself for the operation's holder without
// asking. Somebody else does not before 30 s.
const doubtAfter = 10 * time.Second

// sure asks the journal whether the operation is still this process's, if it has not
// for a while: a process that was frozen does not know that, and libvirt does not know
// of fences.
func (o *opened) sure(ctx context.Context) error {
	if o == nil || time.Now().Round(0).Sub(o.seen) < doubtAfter { // the wall's clock: another stands still in a suspended host
		return nil
	}
	return o.write(ctx)
}

func (o *opened) write(ctx context.Context) (err error) {
	if o.unwritten {
		return nil
	}
	if o.Plan, err = json.Marshal(o.plan); err != nil {
		return err
	}
	if o.plan.Begun > 0 {
		o.Step = o.plan.Steps[o.plan.Begun-1].Name
	}
	now := time.Now().Round(0)
	if err := o.on.cluster.Advance(ctx, &o.Operation); err != nil {
		return err
	}
	o.seen = now
	return nil
}

// end brings the machine's record up to date and takes the task out of the journal.
func (o *opened) end(ctx context.Context) error {
	if o == nil || o.unwritten {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTimeout)
	defer cancel()
	if o.plan.VM != "" && o.touched {
		if err := o.h.keepRecord(ctx, o.on, o.plan.VM); err != nil {
			if o.giveUp(err) {
				return err
			}
			return errors.Join(err, o.on.cluster.Abandon(ctx, &o.Operation))
		}
	}
	return o.on.cluster.End(ctx, &o.Operation)
}

// written says whether the task is in the journal.
func (o *opened) written() bool { return o != nil && !o.unwritten }

// giveUp leaves a task to a repair if the cluster did not answer: to wait for it
// again would take as long again.
func (o *opened) giveUp(err error) bool {
	if !o.written() || !errors.Is(err, disk.ErrTimeout) {
		return false
	}
	o.on.cluster.GiveUp(&o.Operation)
	return true
}

// stop ends a task that failed with e: it is over, or, if something of it is left,
// in the journal for whoever comes next.
func (o *opened) stop(ctx context.Context, e *Error, left bool) error {
	if o == nil {
		return e
	}
	var err error
	if left {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTimeout)
		defer cancel()
		if err = o.on.cluster.Abandon(ctx, &o.Operation); errors.Is(err, disk.ErrTimeout) {
			err = nil // it is given up all the same
		}
	} else {
		err = o.end(ctx)
	}
	if err != nil {
		e.Left = append(e.Left, "its journal entry "+o.ID+": "+err.Error())
	}
	return e
}

// parsePlan reads what an operation's process wrote down.
func parsePlan(o *disk.Operation) (p plan, err error) {
	if len(o.Plan) == 0 {
		return p, nil
	}
	if err := json.Unmarshal(o.Plan, &p); err != nil {
		return p, fmt.Errorf("read the plan of %s: %w", o, err)
	}
	if p.Begun < 0 || p.Begun > len(p.Steps) {
		return p, fmt.Errorf("the plan of %s has %d steps, of which %d begun", o, len(p.Steps), p.Begun)
	}
	return p, nil
}
