// Rescue: a machine booted from another image, with its own disk beside it.

package vmdisk

import (
	"context"
	"errors"
	"slices"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/domain"
	"libvirt.org/go/libvirt"
)

// RescueOptions say how a machine is rescued.
type RescueOptions struct {
	Image   string // [POOL/]ID[@SNAP] to boot from
	Force   bool   // cut the power instead of asking the guest first
	NoStart bool   // leave the machine off
}

// Rescue boots a machine from a clone of another image, which takes the place of
// its root disk; that is beside it at the next free target, and all its other disks
// are where they were. The machine is stopped first if it runs: asked, and its power
// cut if it does not obey within [Config.Timeout]. [Host.Unrescue] goes back, also
// from another host and whatever was killed in between: the definition itself keeps
// what was changed in it. On failure the machine is as it was.
//
// A machine that is in rescue is [domain.ErrExists].
//
// Similar to: openstack server rescue. Source: nova, virt/libvirt/driver.py.
func (h *Host) Rescue(ctx context.Context, vm string, o RescueOptions) (VM, error) {
	const op = "rescue"
	r := &rescue{outage: outage{h: h, op: op, force: o.Force}}
	defer r.end()
	if err := r.prepare(ctx, vm); err != nil {
		return VM{}, failed(op, vm, err)
	}
	image, err := disk.ParseImage(o.Image)
	if r.image = image; err == nil {
		err = r.cluster.Cloneable(ctx, r.image)
	}
	if err != nil {
		return VM{}, failed(op, vm, err)
	}
	t := h.onMachine(&r.session, op, r.vm)
	t.check = func(ctx context.Context) error {
		err := r.findAgain(ctx)
		if err == nil {
			err = r.refuseTwice()
		}
		return err
	}
	t.steps = func() []step {
		steps := []step{
			r.secretStep(),
			{name: "clone", detail: says(r.image.String() + " → " + r.disk.String()), do: r.clone, back: []action{{Verb: actRemove, Image: r.disk.String()}}},
		}
		steps = append(steps, r.begin()...)
		steps = append(steps, step{name: "define", detail: says(r.vm.Name + " with " + r.disk.Image), do: r.enter, back: []action{r.withDisk(actUnrescue)}})
		if !o.NoStart {
			steps = append(steps, step{name: "start", detail: says(r.vm.Name), do: r.start, back: []action{r.on(actPowerOff)}})
		}
		return steps
	}
	if err := h.perform(ctx, t); err != nil {
		return VM{}, err
	}
	return h.outcome(ctx, r.conn, r.vm.UUID)
}

// Unrescue boots a machine from its own disk again, defined as it was before
// [Host.Rescue], and removes the disk that it was rescued with. A machine that runs
// is stopped for it, asked first unless force is set, and started again; one that is
// off stays off. Killed after the machine was defined, it is finished by running it
// again. A machine that is not in rescue is [domain.ErrNotFound].
//
// Similar to: openstack server unrescue.
func (h *Host) Unrescue(ctx context.Context, vm string, force bool) (VM, error) {
	const op = "unrescue"
	r := &rescue{outage: outage{h: h, op: op, force: force}}
	defer r.end()
	if err := r.prepare(ctx, vm); err != nil {
		return VM{}, failed(op, vm, err)
	}
	if !r.inRescue() {
		if err := r.leftover(ctx); err != nil {
			return VM{}, failed(op, vm, err)
		}
	}
	t := h.onMachine(&r.session, op, r.vm)
	t.check, t.steps = r.findAgain, r.unrescue
	err := h.perform(ctx, t)
	var e *Error
	if errors.As(err, &e) && e.Step == "remove" {
		e.Next = "to finish:  vmdisk unrescue " + r.vm.Name
	}
	if err != nil {
		return VM{}, err
	}
	return h.outcome(ctx, r.conn, r.vm.UUID)
}

func (r *rescue) unrescue() []step {
	remove := action{Verb: actRemove, Image: r.disk.String()}
	last := step{name: "remove", detail: r.disk.String, do: r.remove, on: []action{remove}}
	if !r.inRescue() {
		last.commit = true
		return []step{last}
	}
	steps := append([]step{r.secretStep()}, r.begin()...)
	steps = append(steps, step{name: "define", detail: says(r.vm.Name + " as it was"), do: r.leave,
		back: []action{r.withDisk(actRescue)}, on: []action{r.withDisk(actUnrescue)}})
	steps = append(steps, r.finish()...)
	steps[len(steps)-1].commit = true
	return append(steps, last)
}

// withDisk is an action on the machine and the disk that it is rescued with.
func (r *rescue) withDisk(v verb) action {
	a := r.on(v)
	if a.Image = r.disk.String(); v == actRescue {
		a.To = r.root.String()
	}
	return a
}

// rescue is the state that the steps share.
type rescue struct {
	outage
	root  disk.Name
	disk  disk.Name // what the machine is rescued with
	image disk.Name // what that is a clone of
}

func (r *rescue) prepare(ctx context.Context, vm string) (err error) {
	if err = r.find(ctx, vm); err != nil {
		return err
	}
	r.root, _, err = rootOf(r.vm)
	r.disk = disk.Name{Pool: r.root.Pool, Image: disk.RescueDiskName(r.vm.UUID)}
	return err
}

// leftover is an error unless there is a disk that an unrescue left which was killed
// before its last step.
func (r *rescue) leftover(ctx context.Context) error {
	_, err := r.cluster.Size(ctx, r.disk)
	if errors.Is(err, disk.ErrNotFound) {
		err = &domain.Error{Object: r.vm.Name, Kind: domain.ErrNotFound, Reason: "is not in rescue"}
	}
	return err
}

func (o *outage) inRescue() bool { return refuseRescued(o.vm) != nil }

func (o *outage) refuseTwice() error { return refuseRescued(o.vm) }

// refuseRescued refuses a machine that is in rescue: its definition keeps where its own
// disk was.
func refuseRescued(vm domain.Info) error {
	if !slices.ContainsFunc(vm.Disks, func(d domain.DiskInfo) bool { return disk.Role(vm.UUID, d.Image) == disk.RoleRescue }) {
		return nil
	}
	return &domain.Error{Object: vm.Name, Kind: domain.ErrExists,
		Reason: "is in rescue; back to its own disk:  vmdisk unrescue " + vm.Name}
}

// clone replaces what a rescue that was killed has left: the machine is not in
// rescue, so nobody needs it.
func (r *rescue) clone(ctx context.Context) error {
	if err := r.remove(ctx); err != nil {
		return err
	}
	return r.cluster.Clone(ctx, r.image, 0, r.disk)
}

func (r *rescue) remove(ctx context.Context) error { return r.cluster.RemoveDisk(ctx, r.disk) }

func (r *rescue) enter(ctx context.Context) error {
	return r.h.act(ctx, &r.session, r.withDisk(actRescue))
}

func (r *rescue) leave(ctx context.Context) error {
	return r.h.act(ctx, &r.session, r.withDisk(actUnrescue))
}

// enterRescue defines a machine with the disk n in the place of its own; one that is
// in rescue is.
func (h *Host) enterRescue(ctx context.Context, on *session, conn *libvirt.Connect, n disk.Name, a action) error {
	s, _, err := h.ensureSecret(ctx, on.cluster, conn)
	if err != nil {
		return err
	}
	with, err := h.rbdDisk(ctx, on.cluster, n, s.UUID)
	if err != nil {
		return err
	}
	err = h.redefine(ctx, session{cluster: on.cluster, conn: conn}, domain.Info{UUID: a.VM}, &s, func(xml string) (string, error) {
		return domain.Rescue(xml, a.To, with)
	})
	if errors.Is(err, domain.ErrExists) {
		return nil
	}
	return err
}

// leaveRescue defines a machine as it was; one that is not in rescue is.
func (h *Host) leaveRescue(ctx context.Context, on *session, conn *libvirt.Connect, n disk.Name, a action) error {
	s, _, err := h.ensureSecret(ctx, on.cluster, conn)
	if err != nil {
		return err
	}
	err = h.redefine(ctx, session{cluster: on.cluster, conn: conn}, domain.Info{UUID: a.VM}, &s, func(xml string) (string, error) {
		return domain.Unrescue(xml, n.String())
	})
	if errors.Is(err, domain.ErrNotFound) {
		return nil
	}
	return err
}
