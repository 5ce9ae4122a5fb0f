// Remove: a machine and what it owns.

package vmdisk

import (
	"context"
	"errors"

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
// resize, which goes too), and has then changed nothing. Interrupted, it is finished by running it again; the machine is
// forgotten last, so that its name leads to the rest until the end.
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
	steps := []step{{name: "stop", detail: says(r.VM), do: r.stop}}
	for _, n := range r.images {
		steps = append(steps, step{name: "remove", detail: n.String,
			do: func(ctx context.Context) error { return r.cluster.RemoveMachineDisk(ctx, n) }})
	}
	for _, n := range r.volumes {
		steps = append(steps, step{name: "release", detail: n.String,
			do: func(ctx context.Context) error { return r.cluster.Release(ctx, n, r.UUID) }})
	}
	steps = append(steps, step{name: "undefine", detail: says(r.VM), do: r.undefine})
	err := h.run(ctx, op, r.VM, steps...)
	var e *Error
	if errors.As(err, &e) && e.Step != steps[0].name {
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
}

func (r *removal) prepare(ctx context.Context, vm string) (err error) {
	info, err := r.find(ctx, r.h, vm)
	if err != nil {
		return err
	}
	r.VM, r.UUID = info.Name, info.UUID
	r.Images, r.Kept = []string{}, []string{}
	if r.images, err = r.cluster.MachineImages(ctx, r.h.cfg.VMPool, info.UUID); err != nil {
		return err
	}
	for _, n := range r.images {
		if err := r.cluster.MachineDiskRemovable(ctx, n); err != nil {
			return err
		}
		r.Images = append(r.Images, n.String())
	}
	return r.findVolumes(ctx)
}

// findVolumes lists what the machine has in Ceph and does not own, now or at its
// next start.
func (r *removal) findVolumes(ctx context.Context) error {
	all, err := domain.Disks(ctx, r.conn, r.UUID)
	if err != nil {
		return err
	}
	for _, d := range all {
		n := disk.Name{Pool: d.Pool, Image: d.Image}
		if d.Pool == "" || disk.Owned(r.UUID, d.Image) {
			continue
		}
		r.volumes = append(r.volumes, n)
		r.Kept = append(r.Kept, n.String())
	}
	return nil
}

func (r *removal) stop(ctx context.Context) error { return domain.Destroy(ctx, r.conn, r.UUID) }

func (r *removal) undefine(ctx context.Context) error { return domain.Undefine(ctx, r.conn, r.UUID) }
