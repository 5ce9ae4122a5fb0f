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
	t := h.onMachine(&r.session, op, r.vm, h.rootLease(r.vm.UUID))
	t.check, t.steps = r.check, r.steps
	err := h.perform(ctx, t)
	var e *Error
	if errors.As(err, &e) && e.Step == "remove" {
		e.Left = append(e.Left, r.before.String()+", the old disk")
		e.Next = r.vm.Name + " is rebuilt; the rest:  vmdisk disk rm " + r.before.String()
	}
	if err != nil {
		return VM{}, failedResize(op, vm, r.vm.Name, err)
	}
	return h.outcome(ctx, r.conn, r.vm.UUID)
}

func (r *rebuild) steps() []step {
	var steps []step
	if r.old == r.before {
		steps = append(steps, step{name: "recover", detail: says(r.before.Image + " → " + r.root.Image), do: r.recover})
	}
	if r.vm.Running {
		steps = append(steps, r.secretStep())
	}
	steps = append(steps,
		step{name: "clone", detail: says(r.image.String() + " → " + r.next.String() + ", " + disk.FormatSize(r.size)), do: r.clone, back: []action{{Verb: actRemove, Image: r.next.String()}}})
	steps = append(steps, r.begin()...)
	putBack := action{Verb: actRename, Image: r.before.String(), To: r.root.String()}
	// What is there now is the new disk only while the old one is set aside.
	takeOut := action{Verb: actRename, Image: r.root.String(), To: r.next.String(), While: r.before.String()}
	replace := action{Verb: actRename, Image: r.next.String(), To: r.root.String()}
	steps = append(steps,
		step{name: "aside", detail: says(r.root.Image + " → " + r.before.Image), do: r.setAside, back: []action{putBack}},
		step{name: "replace", detail: says(r.next.Image + " → " + r.root.Image), do: r.replace, back: []action{takeOut}, on: []action{replace}})
	steps = append(steps, r.finish()...)
	steps[len(steps)-1].commit = true
	return append(steps, step{name: "remove", detail: r.before.String, do: r.removeBefore, on: []action{{Verb: actRemove, Image: r.before.String()}}})
}

// rebuild is the state that the steps share.
type rebuild struct {
	outage
	image  disk.Name
	root   disk.Name
	next   disk.Name // the new disk in the making
	before disk.Name // the old one set aside
	old    disk.Name // where it is now
	size   int64     // of the old one, or of the image where that is larger
}

func (r *rebuild) prepare(ctx context.Context, vm, image string) (err error) {
	if r.image, err = disk.ParseImage(image); err != nil {
		return err
	}
	if err = r.find(ctx, vm); err != nil {
		return err
	}
	if r.root, _, err = rootOf(r.vm); err != nil {
		return err
	}
	r.next, r.before = r.root, r.root
	r.next.Image += ".rebuild"
	r.before.Image += ".before"
	return r.cluster.Cloneable(ctx, r.image)
}

// check refuses what cannot work, now that nobody else changes the machine.
func (r *rebuild) check(ctx context.Context) (err error) {
	if err = r.findAgain(ctx); err != nil {
		return err
	}
	if err = r.refuseTwice(); err != nil {
		return err
	}
	if err = r.findOld(ctx); err != nil {
		return err
	}
	least, err := r.cluster.SnapshotSize(ctx, r.image)
	if err != nil {
		return err
	}
	r.size = max(r.size, least)
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
	if err := r.cluster.RemoveDisk(ctx, r.next); err != nil {
		return err
	}
	return r.cluster.Clone(ctx, r.image, r.size, r.next)
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

// recover takes back what a rebuild that was killed has left, before there was a
// journal.
func (r *rebuild) recover(ctx context.Context) error {
	return r.cluster.Rename(ctx, r.before, r.root)
}

func (r *rebuild) replace(ctx context.Context) error { return r.cluster.Rename(ctx, r.next, r.root) }

// rename gives an image another name, unless there is one of that name: then it has
// it, for what had it before has been renamed or was never there.
func (h *Host) rename(ctx context.Context, cluster *disk.Cluster, from disk.Name, a action) error {
	to, err := disk.ParseName(a.To, from.Pool)
	if err != nil {
		return err
	}
	if a.While != "" {
		while, err := disk.ParseName(a.While, from.Pool)
		if err == nil {
			_, err = cluster.Size(ctx, while)
		}
		if err != nil {
			return gone(err)
		}
	}
	if _, err := cluster.Size(ctx, to); !errors.Is(err, disk.ErrNotFound) {
		if err == nil {
			err = cluster.FinishRename(ctx, from, to)
		}
		return err
	}
	if err := cluster.WaitUnused(ctx, from); err != nil {
		return gone(err)
	}
	return cluster.Rename(ctx, from, to)
}

func (r *rebuild) removeBefore(ctx context.Context) error { return r.cluster.RemoveDisk(ctx, r.before) }
