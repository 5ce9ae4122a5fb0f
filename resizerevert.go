// Resize with a way back: a snapshot from before is kept until the resize is
// confirmed or reverted.

package vmdisk

import (
	"context"
	"errors"
	"time"

	"github.com/vmdisk/vmdisk/disk"
)

// PendingResize is a resize that was neither confirmed nor reverted yet.
type PendingResize struct {
	From  int64     `json:"from"` // the size before, in bytes
	Since time.Time `json:"since"`
}

// ResizeRevertible grows a machine's root disk as [Host.Resize] does, and keeps a
// way back: the snapshot "nova-resize", taken before, until [Host.ConfirmResize]
// or [Host.RevertResize]. Nova stops the machine for it; here a running guest is
// frozen for the moment of the snapshot if its agent answers, and goes on. While
// one is pending, another is [disk.ErrExists].
//
// Similar to: openstack server resize.
func (h *Host) ResizeRevertible(ctx context.Context, vm string, size int64, by bool) (VM, error) {
	const op = "resize"
	g := &growth{h: h, size: size, by: by}
	defer g.end()
	if err := g.prepare(ctx, vm); err != nil {
		return VM{}, failed(op, vm, err)
	}
	t := h.onMachine(&g.session, op, g.vm)
	t.check = func(ctx context.Context) error {
		if err := h.whole(ctx, g.cluster, g.vm.Name, g.root); err != nil {
			return err
		}
		pending, err := pendingResize(ctx, g.cluster, g.root)
		if err == nil && pending != nil {
			err = isPending(g.root, g.vm.Name)
		}
		if err == nil {
			err = g.measure(ctx)
		}
		return err
	}
	t.steps = func() []step {
		snap := g.root
		snap.Snap = disk.ResizeSnapshot
		grow := g.step()
		grow.commit = true // a disk does not shrink while somebody has it open
		return append((&still{session: &g.session, h: h, op: op, object: g.vm.Name, vm: g.vm, name: snap}).steps(), grow)
	}
	if err := h.perform(ctx, t); err != nil {
		return VM{}, failedResize(op, vm, g.vm.Name, err)
	}
	done, err := h.outcome(ctx, g.conn, g.vm.UUID)
	if err == nil {
		err = failed("inspect", g.vm.Name, h.addPending(context.WithoutCancel(ctx), &done))
	}
	return done, err
}

// ConfirmResize makes a resize final: its way back is removed. Without one pending
// it is [disk.ErrNotFound].
//
// Similar to: openstack server resize confirm.
func (h *Host) ConfirmResize(ctx context.Context, vm string) (VM, error) {
	const op = "confirm resize of"
	r := &reversion{outage: outage{h: h, op: op}}
	defer r.end()
	if err := r.prepare(ctx, vm); err != nil {
		return VM{}, failed(op, vm, err)
	}
	t := h.onMachine(&r.session, op, r.vm)
	t.check, t.forward = r.check, true
	t.steps = func() []step { return []step{r.forgetStep()} }
	err := h.perform(ctx, t)
	if err != nil {
		return VM{}, err
	}
	return h.outcome(ctx, r.conn, r.vm.UUID)
}

// RevertResize gives a machine's root disk the content and the size that it had
// before [Host.ResizeRevertible]; what was written since is lost. A machine that
// runs is stopped for it, asked first unless force is set, and started again. The
// disk's rolling back takes a time in proportion to its size, is told of by
// Progress events, and once begun is not undone: interrupted, it is finished by
// running it again. Without a pending resize it is [disk.ErrNotFound].
//
// Similar to: openstack server resize revert; rbd snap rollback.
func (h *Host) RevertResize(ctx context.Context, vm string, force bool) (VM, error) {
	const op = "revert resize of"
	r := &reversion{outage: outage{h: h, op: op, force: force}}
	defer r.end()
	if err := r.prepare(ctx, vm); err != nil {
		return VM{}, failed(op, vm, err)
	}
	t := h.onMachine(&r.session, op, r.vm)
	t.check, t.steps = r.check, r.steps
	err := h.perform(ctx, t)
	var e *Error
	if errors.As(err, &e) {
		switch e.Step {
		case "rollback", "forget":
			e.Next = "to finish:  vmdisk resize --revert " + r.vm.Name
		case "refresh", "start":
			e.Next = "it is reverted; to start it:  vmdisk start " + r.vm.Name
		}
	}
	if err != nil {
		return VM{}, err
	}
	return h.outcome(ctx, r.conn, r.vm.UUID)
}

// reversion is the state that the steps share.
type reversion struct {
	outage
	root    disk.Name
	snap    disk.Name
	pending PendingResize
	done    bool // by a repair
}

func (r *reversion) steps() []step {
	if r.done {
		return nil
	}
	var steps []step
	if r.vm.Running {
		steps = append(steps, r.secretStep())
	}
	steps = append(steps, r.begin()...)
	steps = append(steps,
		step{name: "rollback", detail: func() string { return r.root.String() + " to " + disk.FormatSize(r.pending.From) }, do: r.rollback, commit: true,
			on: []action{{Verb: actRollBack, Image: r.snap.String()}}},
		r.forgetStep())
	return append(steps, r.finish()...)
}

func (r *reversion) forgetStep() step {
	return step{name: "forget", detail: r.snap.String, do: r.forget, on: []action{{Verb: actRemoveSnap, Image: r.snap.String()}}}
}

// check looks again, now that nobody else changes the machine. A resize that is not
// pending any more was half ended, and that has just been finished.
func (r *reversion) check(ctx context.Context) error {
	if err := r.findAgain(ctx); err != nil {
		return err
	}
	pending, err := pendingResize(ctx, r.cluster, r.root)
	r.done = err == nil && pending == nil
	return err
}

func (r *reversion) prepare(ctx context.Context, vm string) (err error) {
	if err = r.find(ctx, vm); err != nil {
		return err
	}
	if r.root, _, err = rootOf(r.vm); err != nil {
		return err
	}
	r.snap = r.root
	r.snap.Snap = disk.ResizeSnapshot
	pending, err := pendingResize(ctx, r.cluster, r.root)
	if err == nil && pending == nil {
		err = &disk.Error{Object: "resize of " + r.vm.Name, Kind: disk.ErrNotFound, Reason: "none is pending"}
	}
	if err == nil {
		r.pending = *pending
	}
	return err
}

func (r *reversion) rollback(ctx context.Context) error {
	if err := r.cluster.WaitUnused(ctx, r.root); err != nil {
		return err
	}
	return r.cluster.Rollback(ctx, r.snap, r.h.shows(r.op, r.vm.Name, "rollback", r.pending.From))
}

// rollBack finishes a rolling back, by another process. Without the snapshot it is
// done.
func (h *Host) rollBack(ctx context.Context, cluster *disk.Cluster, snap disk.Name) error {
	err := cluster.WaitUnused(ctx, snap)
	if err == nil {
		err = cluster.Rollback(ctx, snap, nil)
	}
	return gone(err)
}

// forget removes the way back; one that is gone is fine.
func (r *reversion) forget(ctx context.Context) error {
	err := r.cluster.RemoveSnapshot(ctx, r.snap)
	if errors.Is(err, disk.ErrNotFound) {
		return nil
	}
	return err
}

// pendingResize is the way back that a root disk has, or nil.
func pendingResize(ctx context.Context, cluster *disk.Cluster, root disk.Name) (*PendingResize, error) {
	all, err := cluster.Snapshots(ctx, root)
	for _, s := range all {
		if s.Name == disk.ResizeSnapshot {
			return &PendingResize{From: s.Size, Since: s.Created}, err
		}
	}
	return nil, err
}

// isPending refuses what a pending resize is in the way of.
func isPending(root disk.Name, vm string) error {
	return &disk.Error{Object: vm, Kind: disk.ErrExists,
		Reason: "a resize is pending (snapshot " + root.String() + "@" + disk.ResizeSnapshot + ")"}
}

// failedResize says how a pending resize is ended, if that is what is in the way.
func failedResize(op, object, vm string, err error) error {
	err = failed(op, object, err)
	var e *Error
	if errors.As(err, &e) && errors.Is(err, disk.ErrExists) {
		e.Next = "end it first:  vmdisk resize --confirm " + vm + "  or  vmdisk resize --revert " + vm
	}
	return err
}

// addPending adds the pending resize to a machine's description. It opens the root
// disk, which describing many machines does not.
func (h *Host) addPending(ctx context.Context, vm *VM) error {
	for _, d := range vm.Disks {
		if d.Role != disk.RoleRoot || d.Size == 0 { // 0: Ceph does not answer, which was said
			continue
		}
		cluster, err := h.Cluster(ctx)
		if err == nil {
			vm.Filling, err = h.fillingOf(ctx, cluster, disk.Name{Pool: d.Pool, Image: d.Image})
		}
		if err == nil && vm.Filling == nil { // which has no snapshot, and may not open
			vm.Resize, err = pendingResize(ctx, cluster, disk.Name{Pool: d.Pool, Image: d.Image})
		}
		return err
	}
	return nil
}
