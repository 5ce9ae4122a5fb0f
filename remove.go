// Remove: a machine and what it owns.

package vmdisk

import (
	"context"
	"errors"
	"strings"

	"github.com/google/uuid"
	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/domain"
	"libvirt.org/go/libvirt"
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
// nothing is in the way (a snapshot or a clone of a disk), and has then changed
// nothing. Interrupted, it is finished by running it again; the machine is
// forgotten last, so that its name leads to the rest until the end. By UUID it
// also removes the images of a machine that is not defined any more.
//
// A name that nothing is known of is [domain.ErrNotFound].
//
// Similar to: virsh destroy, rbd rm, virsh undefine.
func (h *Host) Remove(ctx context.Context, vm string) (Removal, error) {
	const op = "remove"
	r := &removal{h: h}
	if err := r.prepare(ctx, vm); err != nil {
		return Removal{}, failed(op, vm, err)
	}
	steps := []step{{name: "stop", detail: says(r.VM), do: r.stop}}
	for _, n := range r.images {
		steps = append(steps, step{name: "remove", detail: n.String,
			do: func(ctx context.Context) error { return r.cluster.RemoveDisk(ctx, n) }})
	}
	for _, n := range r.volumes {
		steps = append(steps, step{name: "release", detail: n.String,
			do: func(ctx context.Context) error { return r.cluster.Release(ctx, n, r.UUID) }})
	}
	steps = append(steps, step{name: "undefine", detail: says(r.VM), do: r.undefine})
	return r.Removal, h.run(ctx, op, r.VM, steps...)
}

type removal struct {
	Removal
	h       *Host
	cluster *disk.Cluster
	conn    *libvirt.Connect
	images  []disk.Name
	volumes []disk.Name
}

func (r *removal) prepare(ctx context.Context, vm string) (err error) {
	if r.cluster, r.conn, err = r.h.both(ctx); err != nil {
		return err
	}
	info, err := domain.Find(ctx, r.conn, vm)
	unknown := errors.Is(err, domain.ErrNotFound)
	if err != nil && (!unknown || uuid.Validate(vm) != nil) {
		return err
	}
	if unknown {
		info = domain.Info{Name: vm, UUID: strings.ToLower(vm)}
	}
	notFound := err
	r.VM, r.UUID = info.Name, info.UUID
	r.Images, r.Kept = []string{}, []string{}
	if r.images, err = r.cluster.MachineImages(ctx, r.h.cfg.VMPool, info.UUID); err != nil {
		return err
	}
	if unknown && len(r.images) == 0 {
		return notFound
	}
	for _, n := range r.images {
		if err := r.cluster.Removable(ctx, n); err != nil {
			return err
		}
		r.Images = append(r.Images, n.String())
	}
	return r.findVolumes(info)
}

// findVolumes lists what the machine has in Ceph and does not own.
func (r *removal) findVolumes(info domain.Info) error {
	for _, d := range info.Disks {
		n := disk.Name{Pool: d.Pool, Image: d.Image}
		if d.Pool == "" || strings.HasPrefix(d.Image, info.UUID+"_") {
			continue
		}
		r.volumes = append(r.volumes, n)
		r.Kept = append(r.Kept, n.String())
	}
	return nil
}

func (r *removal) stop(ctx context.Context) error { return domain.Destroy(ctx, r.conn, r.UUID) }

func (r *removal) undefine(ctx context.Context) error { return domain.Undefine(ctx, r.conn, r.UUID) }
