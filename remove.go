// Remove: a machine and what it owns.

package vmdisk

import (
	"context"
	"encoding/json"
	"errors"
	"slices"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/domain"
)

// Removal is what [Host.Remove] removed.
type Removal struct {
	VM     string   `json:"vm"`
	UUID   string   `json:"uuid"`
	Images []string `json:"images"` // POOL/IMAGE that were removed
	Kept   []string `json:"kept"`   // volumes that were attached and stay
}

// Remove cuts a machine's power, removes its images (those named UUID_…),
// gives its volumes back, and undefines it. Volumes stay. It checks first that
// nothing is in the way (a snapshot or a clone of a disk; not the way back of a
// resize, which goes too), and has then changed nothing. Interrupted, it is finished
// by running it again, or by a repair; the machine is forgotten last, so that its
// name leads to the rest until the end.
//
// A machine that this host does not know is [domain.ErrNotFound], also if it has
// disks: another host may have it. For those there is [Host.RemoveDisk].
//
// Similar to: virsh destroy, rbd rm, virsh undefine.
func (h *Host) Remove(ctx context.Context, vm string) (Removal, error) {
	const op = "remove"
	r := &removal{h: h}
	defer r.end()
	if err := r.prepare(ctx, vm); err != nil {
		return Removal{}, failed(op, vm, err)
	}
	t := h.onMachine(&r.session, op, domain.Info{Name: r.VM, UUID: r.UUID}, h.rootLease(r.UUID))
	t.check, t.steps, t.forward = r.check, r.steps, true
	err := h.perform(ctx, t)
	var e *Error
	if errors.As(err, &e) && e.Step != "" && (e.Step != "stop" || errors.Is(err, domain.ErrTimeout)) {
		e.Left = append(e.Left, r.VM+" is half removed")
		e.Next = "to finish:  vmdisk rm " + r.VM
	}
	return r.Removal, err
}

type removal struct {
	Removal
	session
	h       *Host
	images  []disk.Name
	volumes []disk.Name
	done    bool // by a repair
}

func (r *removal) prepare(ctx context.Context, vm string) error {
	if err := r.open(ctx, r.h); err != nil {
		return err
	}
	was, err := r.halfRemoved(ctx, vm)
	if err != nil {
		return err
	}
	info, err := r.find(ctx, r.h, vm)
	if was.UUID != "" && errors.Is(err, domain.ErrNotFound) {
		r.VM, r.UUID, r.Images, r.Kept = was.Name, was.UUID, []string{}, []string{}
		return nil // it has just been finished
	}
	if err != nil {
		return err
	}
	r.VM, r.UUID = info.Name, info.UUID
	return r.look(ctx)
}

// halfRemoved is the machine, if its removal was interrupted.
func (r *removal) halfRemoved(ctx context.Context, vm string) (domain.Info, error) {
	pool := r.h.cfg.VMPool
	all, err := r.cluster.Operations(ctx, pool)
	if err != nil {
		return domain.Info{}, err
	}
	for _, o := range all {
		if o.Kind != "remove" || !slices.Contains(o.Leases, pool+"/"+vm) {
			continue
		}
		var p plan
		if json.Unmarshal(o.Plan, &p) == nil && p.VM != "" {
			return domain.Info{Name: o.Object, UUID: p.VM}, nil
		}
	}
	return domain.Info{}, nil
}

// check looks again, now that nobody else changes the machine. One that is gone was
// half removed, and that has just been finished.
func (r *removal) check(ctx context.Context) error {
	_, err := domain.Find(ctx, r.conn, r.UUID)
	if errors.Is(err, domain.ErrNotFound) {
		r.done = true
		return nil
	}
	if err != nil {
		return err
	}
	return r.look(ctx)
}

// look finds what the machine has, and who is in the way of removing it.
func (r *removal) look(ctx context.Context) (err error) {
	r.Images, r.Kept, r.volumes = []string{}, []string{}, nil
	if r.images, err = r.cluster.MachineImages(ctx, r.h.cfg.VMPool, r.UUID); err != nil {
		return err
	}
	if err := r.findDisks(ctx); err != nil {
		return err
	}
	for _, n := range r.images {
		if err := r.cluster.MachineDiskRemovable(ctx, n); err != nil {
			return err
		}
		r.Images = append(r.Images, n.String())
	}
	return nil
}

func (r *removal) steps() []step {
	if r.done {
		return nil
	}
	machine := action{VM: r.UUID, Name: r.VM, Host: r.host}
	forward := func(name, detail string, a action) step { return r.h.forward(&r.session, name, detail, a) }
	stop, undefine := machine, machine
	stop.Verb, undefine.Verb = actPowerOff, actUndefine
	steps := []step{forward("stop", r.VM, stop)}
	for _, n := range r.images {
		steps = append(steps, forward("remove", n.String(), action{Verb: actRemoveDisk, Image: n.String()}))
	}
	for _, n := range r.volumes {
		steps = append(steps, forward("release", n.String(), action{Verb: actRelease, Image: n.String(), VM: r.UUID}))
	}
	return append(steps, forward("undefine", r.VM, undefine))
}

// findDisks lists what the machine has in Ceph now or at its next start: volumes, and
// disks of its own that were moved to another pool.
func (r *removal) findDisks(ctx context.Context) error {
	all, err := disksOf(ctx, r.cluster, r.conn, r.UUID)
	if err == nil {
		err = refuseAbroad(r.VM, all)
	}
	if err != nil {
		return err
	}
	for _, d := range all {
		n := disk.Name{Pool: d.Pool, Image: d.Image}
		switch {
		case d.Pool == "" || slices.Contains(r.images, n):
		case disk.Owned(r.UUID, d.Image):
			r.images = append(r.images, n)
		default:
			r.volumes = append(r.volumes, n)
			r.Kept = append(r.Kept, n.String())
		}
	}
	return nil
}
