// Resizing a volume: in Ceph while nobody has it open, else by the QEMU that has,
// so that its guest sees it.

package vmdisk

import (
	"context"
	"errors"
	"fmt"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/domain"
)

// VolumeSize says how large to make a volume.
type VolumeSize struct {
	Size int64 // bytes, whole GiB
	By   bool  // Size is how much to grow by
	// AllowShrink lets a volume that nobody has open lose what is beyond Size.
	AllowShrink bool
}

// ResizeVolume gives a volume another size. If a machine of this host has it open,
// its guest sees it at once; shrinking is refused then, [disk.ErrInvalid], as it is
// without AllowShrink at any time. A volume that is open anywhere else is
// [disk.ErrInUse], and the error says where to run this. Of two that resize one
// volume at once, one is [disk.ErrInUse] or both are done.
//
// Similar to: rbd resize, or virsh blockresize if the volume is attached.
func (h *Host) ResizeVolume(ctx context.Context, volume string, to VolumeSize) (disk.Volume, error) {
	const op = "resize"
	cluster, name, err := h.volumeName(ctx, volume)
	if err != nil {
		return disk.Volume{}, failed(op, "volume "+volume, err)
	}
	r := &volumeResize{h: h, name: name, to: to}
	r.cluster = cluster
	defer r.end()
	if err := r.prepare(ctx); err != nil {
		return disk.Volume{}, r.elsewhere(ctx, failed(op, name.String(), err))
	}
	err = h.run(ctx, op, name.String(), step{name: "resize", commit: true,
		detail: says(disk.FormatSize(r.has) + " → " + disk.FormatSize(r.want)), do: r.resize})
	if err != nil {
		return disk.Volume{}, r.elsewhere(ctx, err)
	}
	v, err := cluster.Volume(context.WithoutCancel(ctx), name)
	return v, failed(op, name.String(), err)
}

type volumeResize struct {
	session
	h         *Host
	name      disk.Name
	to        VolumeSize
	has, want int64
	vm        string // the machine of this host that has it open, or ""
	target    string
}

func (r *volumeResize) prepare(ctx context.Context) (err error) {
	if err := r.cluster.CheckVolume(ctx, r.name); err != nil {
		return err
	}
	if r.has, err = r.cluster.Size(ctx, r.name); err != nil {
		return err
	}
	r.want = r.to.Size
	if r.to.By {
		r.want += r.has
	}
	if err := disk.CheckVolumeSize(r.name, r.has, r.want, r.to.AllowShrink); err != nil {
		return err
	}
	by, err := r.cluster.Watchers(ctx, r.name)
	if err != nil || len(by) == 0 {
		return err
	}
	if err := r.findHolder(ctx); err != nil {
		return err
	}
	switch {
	case r.vm == "":
		return r.cluster.RefuseUsed(ctx, "resize", r.name)
	case r.want < r.has:
		return badInput("%s is open: a volume is not shrunk under a machine that runs", r.name)
	}
	return nil
}

// findHolder looks for a running machine of this host with the volume, whoever
// attached it.
func (r *volumeResize) findHolder(ctx context.Context) (err error) {
	if r.conn, r.giveBack, err = r.h.borrow(ctx); err != nil {
		return err
	}
	infos, err := domain.List(ctx, r.conn)
	for _, info := range infos {
		for _, d := range info.Disks {
			if info.Running && d.Pool == r.name.Pool && d.Image == r.name.Image {
				r.vm, r.target = info.UUID, d.Target
			}
		}
	}
	return err
}

func (r *volumeResize) resize(ctx context.Context) error {
	if r.vm != "" {
		return domain.Resize(ctx, r.conn, r.vm, r.target, r.want)
	}
	show := r.h.shows("resize", r.name.String(), "resize", max(r.has, r.want))
	return r.cluster.ResizeVolume(ctx, r.name, r.has, r.want, r.to.AllowShrink, show)
}

// elsewhere says where to run the command for a volume that another host's machine
// has.
func (r *volumeResize) elsewhere(ctx context.Context, err error) error {
	var e *Error
	if !errors.As(err, &e) || !errors.Is(err, disk.ErrInUse) {
		return r.h.explain(ctx, r.cluster, r.name, err)
	}
	owner, ownerErr := r.cluster.Owner(context.WithoutCancel(ctx), r.name)
	if ownerErr == nil {
		e.Next = fmt.Sprintf("run it on %s:  vmdisk volume resize %s %dG", owner.Host, disk.VolumeID(r.name.Image), r.want/disk.GiB)
	}
	return err
}
