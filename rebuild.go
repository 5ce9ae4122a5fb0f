// Rebuild: a machine's root disk replaced by a fresh one from another image.

package vmdisk

import (
	"context"
	"errors"

	"github.com/vmdisk/vmdisk/disk"
)

// RebuildOptions say what a machine is rebuilt from.
type RebuildOptions struct {
	Image string // [POOL/]ID[@SNAP] to clone
	Force bool   // cut the power instead of asking the guest first
}

// Rebuild replaces a machine's root disk by a clone of another image, as large as
// the old disk, or as the image if that is larger. Name, UUID, volumes, config drive
// and all other disks stay; what was on the root disk is lost. A machine that runs
// is stopped for it, asked first unless o.Force is set, and started again; one that
// is off stays off.
//
// The old disk is set aside until the machine runs on the new one: on failure it is
// back in its place. Killed, Rebuild is finished by running it again; until then
// the old disk is there, as UUID_disk or UUID_disk.before.
//
// A root disk with a resize pending is [disk.ErrExists], with other snapshots or
// clones [disk.ErrHasSnapshots] or [disk.ErrHasClones], naming them; a machine in
// rescue is [domain.ErrExists].
//
// Similar to: openstack server rebuild.
func (h *Host) Rebuild(ctx context.Context, vm string, o RebuildOptions) (VM, error) {
	const op = "rebuild"
	r := &rebuild{outage: outage{h: h, op: op, force: o.Force}}
	defer r.end()
	if err := r.prepare(ctx, vm, o.Image); err != nil {
		return VM{}, failedResize(op, vm, r.vm.Name, err)
	}
	steps := []step{{name: "clone", detail: says(r.image.String() + " → " + r.next.String()), do: r.clone, undo: r.removeClone},
		{name: "grow", detail: func() string { return r.grown }, do: r.grow}}
	if r.vm.Running {
		steps = append([]step{r.secretStep()}, steps...)
	}
	if r.old == r.before {
		steps = append([]step{{name: "recover", detail: says(r.before.Image + " → " + r.root.Image), do: r.putBack}}, steps...)
	}
	steps = append(steps, r.begin()...)
	steps = append(steps,
		step{name: "aside", detail: says(r.root.Image + " → " + r.before.Image), do: r.setAside, undo: r.putBack},
		step{name: "replace", detail: says(r.next.Image + " → " + r.root.Image), do: r.replace, undo: r.takeOut})
	steps = append(steps, r.finish()...)
	steps[len(steps)-1].commit = true
	steps = append(steps, step{name: "remove", detail: r.before.String, do: r.removeBefore})
	err := h.run(ctx, op, r.vm.Name, steps...)
	var e *Error
	if errors.As(err, &e) && e.Step == "remove" {
		e.Left = append(e.Left, r.before.String()+", the old disk")
		e.Next = r.vm.Name + " is rebuilt; the rest:  vmdisk disk rm " + r.before.String()
	}
	if err != nil {
		return VM{}, err
	}
	if r.vm.Running {
	}
	return h.outcome(ctx, r.conn, r.vm.UUID)
}

// rebuild is the state that the steps share.
type rebuild struct {
	outage
	image  disk.Name
	root   disk.Name
	next   disk.Name // the new disk in the making
	before disk.Name // the old one set aside
	old    disk.Name // where it is now
	size   int64     // of the old one
	grown  string
}

func (r *rebuild) prepare(ctx context.Context, vm, image string) (err error) {
	if r.image, err = disk.ParseImage(image); err != nil {
		return err
	}
	if err = r.find(ctx, vm); err != nil {
		return err
	}
	if err = r.refuseTwice(); err != nil {
		return err
	}
	if r.root, _, err = rootOf(r.vm); err != nil {
		return err
	}
	r.next, r.before = r.root, r.root
	r.next.Image += ".rebuild"
	r.before.Image += ".before"
	if err = r.cluster.Cloneable(ctx, r.image); err != nil {
		return err
	}
	if err = r.findOld(ctx); err != nil {
		return err
	}
	pending, err := pendingResize(ctx, r.cluster, r.old)
	if err == nil && pending != nil {
		err = isPending(r.old, r.vm.Name)
	}
	if err == nil {
		err = r.cluster.Removable(ctx, r.old)
	}
	return err
}

// findOld finds the old disk and its size: a rebuild that was killed may have set it
// aside and not yet replaced it.
func (r *rebuild) findOld(ctx context.Context) (err error) {
	r.old = r.root
	r.size, err = r.cluster.Size(ctx, r.old)
	if !errors.Is(err, disk.ErrNotFound) {
		return err
	}
	size, aside := r.cluster.Size(ctx, r.before)
	if aside == nil {
		r.old, r.size, err = r.before, size, nil
	}
	return err
}

// clone replaces what a rebuild that was killed has left of its own.
func (r *rebuild) clone(ctx context.Context) error {
	if err := r.removeClone(ctx); err != nil {
		return err
	}
	return r.cluster.Clone(ctx, r.image, r.next, 0)
}

func (r *rebuild) removeClone(ctx context.Context) error { return r.cluster.RemoveDisk(ctx, r.next) }

func (r *rebuild) grow(ctx context.Context) error {
	has, err := r.cluster.Size(ctx, r.next)
	if err != nil {
		return err
	}
	to := max(has, r.size)
	r.grown = disk.FormatSize(has) + " → " + disk.FormatSize(to)
	_, err = r.cluster.Grow(ctx, r.next, to)
	return err
}

// setAside first removes what a rebuild set aside that was killed at its very end:
// the machine has run on another disk since.
func (r *rebuild) setAside(ctx context.Context) error {
	if err := r.removeBefore(ctx); err != nil {
		return err
	}
	if err := r.cluster.WaitUnused(ctx, r.root); err != nil {
		return err
	}
	return r.cluster.Rename(ctx, r.root, r.before)
}

func (r *rebuild) putBack(ctx context.Context) error { return r.renameBack(ctx, r.before, r.root) }

func (r *rebuild) replace(ctx context.Context) error { return r.cluster.Rename(ctx, r.next, r.root) }

func (r *rebuild) takeOut(ctx context.Context) error {
	if err := r.cluster.WaitUnused(ctx, r.root); err != nil {
		return err
	}
	return r.renameBack(ctx, r.root, r.next)
}

// renameBack takes a renaming back that may have timed out and not happened: the
// name to go back to is then taken still.
func (r *rebuild) renameBack(ctx context.Context, from, to disk.Name) error {
	if _, err := r.cluster.Size(ctx, to); err == nil {
		return errNothing
	}
	return r.cluster.Rename(ctx, from, to)
}

func (r *rebuild) removeBefore(ctx context.Context) error { return r.cluster.RemoveDisk(ctx, r.before) }
