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
	r := &volumeResize{to: to}
	defer r.end()
	if err := r.open(ctx, h, volume); err != nil {
		return disk.Volume{}, failed(op, "volume "+volume, err)
	}
	err := r.cluster.CheckVolume(ctx, r.name)
	if err == nil {
		t := r.task(op)
		t.check, t.steps = r.prepare, r.steps
		err = h.perform(ctx, t)
	}
	if err != nil {
		return disk.Volume{}, r.elsewhere(ctx, failed(op, r.name.String(), err))
	}
	v, err := r.cluster.Volume(context.WithoutCancel(ctx), r.name)
	return v, failed(op, r.name.String(), err)
}

type volumeResize struct {
	volumeWork
	to        VolumeSize
	has, want int64
	vm        string // the machine of this host that has it open, or ""
	target    string
	begun     bool
}

// steps resize the volume in Ceph, which another process can finish, or have QEMU do
// it, which is one command of its monitor: it happens, or it does not.
func (r *volumeResize) steps() []step {
	s := step{name: "resize", commit: true, detail: says(disk.FormatSize(r.has) + " → " + disk.FormatSize(r.want)), do: r.resize}
	if r.vm == "" {
		s.begun = func() bool { return r.begun }
		s.on = []action{{Verb: actResize, Image: r.name.String(), From: r.has, Size: r.want}}
	}
	return []step{s}
}

func (r *volumeResize) prepare(ctx context.Context) (err error) {
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
	if err := r.openHost(ctx, r.h); err != nil {
		return err
	}
	infos, err := listOwn(ctx, r.cluster, r.conn)
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
	return r.cluster.ResizeVolume(ctx, r.name, r.has, r.want, r.to.AllowShrink, func(done, total int64) {
		r.begun = true
		show(done, total)
	})
}

// finishResize finishes what another process began. A volume of another size than it
// had then has the new one already, or got another by other means.
func (h *Host) finishResize(ctx context.Context, cluster *disk.Cluster, n disk.Name, a action) error {
	err := cluster.WaitUnused(ctx, n)
	var has int64
	if err == nil {
		has, err = cluster.Size(ctx, n)
	}
	if err != nil || has != a.From {
		return gone(err)
	}
	return cluster.ResizeVolume(ctx, n, a.From, a.Size, true, h.shows("repair", n.String(), "resize", max(a.From, a.Size)))
}

// elsewhere says where to run the command for a volume that another host's machine
// has.
func (r *volumeResize) elsewhere(ctx context.Context, err error) error {
	var e *Error
	if !errors.As(err, &e) || !errors.Is(err, disk.ErrInUse) || raced(err) {
		return r.h.explain(ctx, r.cluster, r.name, err)
	}
	owner, ownerErr := r.cluster.Owner(context.WithoutCancel(ctx), r.name)
	if ownerErr == nil {
		e.Next = fmt.Sprintf("run it on %s:  vmdisk volume resize %s %dG", owner.Host, disk.VolumeID(r.name.Image), r.want/disk.GiB)
	}
	return err
}
