// Every step of every workflow is a place where it can end: its process is killed
// there with SIGKILL, the step fails, the caller gives up. Each time there must be
// what there was before, or what there is when all went well: nothing else.

package vmdisk

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/vmdisk/vmdisk/domain"
)

// reversible is two workflows of which each undoes the other.
type reversible struct {
	// setup makes what both work on, and sees to it that it goes.
	setup    func(t *testing.T, h *Host) fixture
	do, undo workflow
}

// workflow is one that is interrupted, or one without a name, which only brings
// back what there was.
type workflow struct {
	name string
	run  func(context.Context, *Host, fixture) error
	// over is what it says if it is done again: that there is nothing to do.
	over error
	host int // of the lab, on which it is killed
}

// again runs a workflow that may have happened already.
func (w workflow) again(ctx context.Context, h *Host, f fixture) error {
	err := w.run(ctx, h, f)
	if w.over != nil && errors.Is(err, w.over) {
		return nil
	}
	return err
}

// fixture names what a workflow works on, also for another process.
type fixture struct {
	VM, UUID, Volume, Source, Image, Backup, File string

	Far string // ceph.conf of another cluster
}

var pairs = slices.Concat(machinePairs, machineDiskPairs, volumePairs, imagePairs, backupPairs, adoptPairs, movePairs)

// interruption is a way for a workflow to end at a point, and its name.
type interruption struct {
	name string
	at   func(t *testing.T, h *Host, w workflow, f fixture, p point) error
}

var interruptions = []interruption{
	{"killed", killedAt},
	{"failed", failedAt},
	{"cancelled", cancelledAt},
}

func TestInterrupted(t *testing.T) {
	for _, p := range pairs {
		t.Run(p.do.name, func(t *testing.T) {
			forgetUnusedSecrets(t) // on every host, as it is done later
			h := open(t, 0)
			f := p.setup(t, h)
			t.Cleanup(func() { _ = p.undo.run(context.WithoutCancel(t.Context()), h, f) })
			// The first run makes what stays for good, as rbd_trash.
			doing := points(t, h, func() error { return p.do.run(t.Context(), h, f) })
			var undoing []point
			if undo := func() error { return p.undo.run(t.Context(), h, f) }; p.undo.name != "" {
				undoing = points(t, h, undo)
			} else {
				must(t, undo())
			}
			without := stateNow(t).named()
			p.do.interrupted(t, h, f, doing, p.undo)
			if len(undoing) > 0 {
				must(t, p.do.run(t.Context(), h, f))
				p.undo.interrupted(t, h, f, undoing, p.do)
				must(t, p.undo.run(t.Context(), h, f))
			}
			if diff := cmp.Diff(without, stateNow(t).named()); diff != "" {
				t.Errorf("in the end (-before +after):\n%s", diff)
			}
		})
	}
}

// interrupted ends a workflow at each point in each way.
func (w workflow) interrupted(t *testing.T, h *Host, f fixture, all []point, reverse workflow) {
	from := stateNow(t).named()
	must(t, w.run(t.Context(), h, f))
	to := stateNow(t).named()
	must(t, reverse.run(t.Context(), h, f))
	for _, p := range all {
		for _, how := range interruptions {
			if how.name == "cancelled" && p.when == after {
				continue // as before the next step
			}
			t.Run(fmt.Sprintf("%s %s %s", w.name, how.name, p), func(t *testing.T) {
				from := from
				if p.step == "secret" {
					forgetUnusedSecrets(t)
					from = stateNow(t).named()
					defer func() { // which puts it there again
						must(t, w.run(t.Context(), h, f))
						must(t, reverse.run(t.Context(), h, f))
					}()
				}
				err := how.at(t, h, w, f, p)
				w.settled(t, h, f, err, from, to)
				if now := stateNow(t).named(); !slices.Equal(now, from) {
					must(t, reverse.run(t.Context(), h, f))
				}
			})
		}
	}
}

// settled is how it must be after an interruption. What the journal holds is being
// finished: by the same command, or by a repair.
func (w workflow) settled(t *testing.T, h *Host, f fixture, err error, from, to state) {
	t.Helper()
	left, e := leftInJournal(t, h), (*Error)(nil)
	if errors.As(err, &e) && len(e.Left) > 0 && !left {
		t.Errorf("left behind, and not in the journal: %v", err)
	}
	if left {
		if err := w.again(t.Context(), h, f); err != nil {
			t.Errorf("the same again: %v", err)
		}
		from = to
	}
	now := stateNow(t).named()
	if !slices.Equal(now, from) && !slices.Equal(now, to) {
		t.Errorf("after %v neither before nor after (-before +got):\n%s(-after +got):\n%s", err, cmp.Diff(from, now), cmp.Diff(to, now))
	}
	if again, err := h.Repair(t.Context(), RepairOptions{}); err != nil || again.Changed() {
		t.Errorf("a repair has something to do: %+v, %v", again, err)
	}
}

func leftInJournal(t *testing.T, h *Host) bool {
	t.Helper()
	for _, pool := range h.pools() {
		all, err := mustCluster(t, h).Operations(t.Context(), pool)
		must(t, err)
		if len(all) > 0 {
			return true
		}
	}
	return false
}

// killedAt kills the process that does it. One that is killed before a step is
// repaired, one that is killed after it is done again.
func killedAt(t *testing.T, h *Host, w workflow, f fixture, p point) error {
	must(t, dies(w.process(f, p)))
	if p.when == before {
		_, err := h.Repair(t.Context(), RepairOptions{})
		must(t, err)
	} else {
		must(t, w.again(t.Context(), h, f))
	}
	return nil
}

func failedAt(t *testing.T, h *Host, w workflow, f fixture, p point) error {
	err := failAt(h, p, func() error { return w.run(t.Context(), h, f) })
	if !errors.Is(err, errTest) {
		t.Errorf("error is %v", err)
	}
	return err
}

// cancelledAt ends the context when the step begins; it may be too late.
func cancelledAt(t *testing.T, h *Host, w workflow, f fixture, p point) error {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	at := counter()
	h.fault = func(_, step string, when phase) error {
		if at(step, when) == p {
			cancel()
		}
		return nil
	}
	defer func() { h.fault = nil }()
	err := w.run(ctx, h, f)
	if err != nil && !errors.Is(err, context.Canceled) {
		t.Errorf("error is %v", err)
	}
	return err
}

// crash is a workflow on what was made for it, and the point at which to die; one
// without a step lives until somebody kills it.
type crash struct {
	Workflow string
	Fixture  fixture
	Step     string
	Nth      int
	When     phase
}

// process is one that does a workflow, and dies at the point.
func (w workflow) process(f fixture, p point) (*exec.Cmd, error) {
	return child("workflow", crash{w.name, f, p.step, p.nth, p.when})
}

// A removal whose process died is finished by the next one, which says what it has
// removed; the one after that finds nothing.
func TestRemoveAfterRemoveDied(t *testing.T) {
	h := open(t, 0)
	_, _, err := h.SetSecret(t.Context())
	must(t, err)
	was := stateNow(t)
	vm := bootOf(t, h, BootOptions{Image: "guest", Memory: guestMemory, NoStart: true})
	i := slices.IndexFunc(machinePairs, func(p reversible) bool { return p.undo.name == "remove" })
	must(t, dies(machinePairs[i].undo.process(fixture{VM: vm.Name, UUID: vm.UUID}, point{step: "undefine", nth: 1, when: before})))
	r, err := h.Remove(t.Context(), vm.Name)
	must(t, err)
	if r.VM != vm.Name || r.UUID != vm.UUID {
		t.Errorf("removed is %+v", r)
	}
	if _, err := h.Remove(t.Context(), vm.Name); !errors.Is(err, domain.ErrNotFound) {
		t.Errorf("again: %v", err)
	}
	was.unchanged(t)
}

func (c crash) happen(t *testing.T) {
	w := workflowNamed(c.Workflow)
	h := open(t, w.host)
	at := counter()
	h.fault = func(_, step string, when phase) error {
		if at(step, when) == (point{c.Step, c.Nth, c.When}) {
			killSelf()
		}
		return nil
	}
	err := w.run(t.Context(), h, c.Fixture)
	if c.Step != "" {
		t.Fatalf("the point was not reached: %v", err)
	}
	must(t, err)
}

func workflowNamed(name string) workflow {
	for _, p := range append(pairs, reversible{do: evacuateWorkflow, undo: slowAdoption}, reversible{do: fillWorkflow, undo: slowMove}) {
		for _, w := range []workflow{p.do, p.undo} {
			if w.name == name {
				return w
			}
		}
	}
	panic("no workflow " + name)
}
