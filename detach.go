// Detach: a volume out of a machine, and given back only when the guest has let
// go of it.

package vmdisk

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/domain"
)

// Detach plugs a volume, named as for [Host.Attach] or by its target, out of a
// machine and waits until the guest has let go of it. If the guest does not
// within [Config.Timeout], the error is [domain.ErrPending]: the volume still
// belongs to the machine and nobody else gets it; run again, Detach finishes. A
// volume that the machine does not have is [domain.ErrNotFound].
//
// Similar to: virsh detach-device --live --config, and waiting.
func (h *Host) Detach(ctx context.Context, vm, volume string) (Attachment, error) {
	const op = "detach"
	d := &detach{h: h}
	defer d.end()
	if err := d.prepare(ctx, vm, volume); err != nil {
		return Attachment{}, failed(op, volume+" from "+vm, err)
	}
	t := h.onMachine(&d.session, op, domain.Info{Name: d.owner.VM, UUID: d.owner.UUID}, d.volume.String())
	t.check, t.forward = d.check, true
	on := action{Image: d.volume.String(), VM: d.owner.UUID, Name: d.owner.VM}
	unplug, release := on, on
	unplug.Verb, unplug.Host, release.Verb = actUnplug, d.host, actRelease
	t.steps = steps(
		step{name: "detach", detail: says(d.target + " " + d.volume.String()), do: d.unplug, on: []action{unplug}},
		step{name: "release", detail: d.volume.String, do: d.release, on: []action{release}})
	err := h.perform(ctx, t)
	return Attachment{VM: d.owner.VM, Target: d.target, Pool: d.volume.Pool, Image: d.volume.Image,
		Serial: disk.VolumeID(d.volume.Image)}, err
}

type detach struct {
	session
	h      *Host
	owner  disk.Owner // the machine, in this host's words
	volume disk.Name
	target string
	gone   bool // the machine is not defined any more
}

func (d *detach) prepare(ctx context.Context, vm, volume string) (err error) {
	info, err := d.find(ctx, d.h, vm)
	switch {
	case err == nil:
		d.owner = disk.Owner{VM: info.Name, UUID: info.UUID}
	case errors.Is(err, domain.ErrNotFound):
		return d.prepareGone(ctx, vm, volume, err)
	default:
		return err
	}
	if d.volume, err = volumeOf(info, volume); err != nil {
		return err
	}
	if disk.Owned(info.UUID, d.volume.Image) {
		return badInput("%s is a disk of %s itself (%s), not a volume", d.volume, info.Name, disk.Role(info.UUID, d.volume.Image))
	}
	var live, kept bool
	d.target, live, kept, err = domain.Plugged(ctx, d.conn, info.UUID, d.volume.Pool, d.volume.Image)
	if slices.ContainsFunc(info.Disks, func(i domain.DiskInfo) bool { return i.Target == d.target && abroad(i) }) {
		return refuseAbroad(info.Name, info.Disks)
	}
	if err != nil || live || kept {
		return err
	}
	// A detach that was interrupted before its last step left only the record.
	owner, err := d.cluster.Owner(ctx, d.volume)
	if err == nil && owner.UUID == info.UUID {
		return nil
	}
	return &domain.Error{Object: d.volume.String(), Kind: domain.ErrNotFound, Reason: "is not attached to " + info.Name}
}

// prepareGone is for a machine that somebody undefined without vmdisk: its
// volumes can be given back on the host that it was on, if nobody has them open.
func (d *detach) prepareGone(ctx context.Context, vm, volume string, notFound error) (err error) {
	if d.volume, err = disk.ParseVolume(volume); err != nil {
		return err
	}
	d.owner, err = d.cluster.Owner(ctx, d.volume)
	if errors.Is(err, disk.ErrNotFound) || err == nil && d.owner.VM != vm && d.owner.UUID != vm {
		return notFound
	}
	if err != nil {
		return err
	}
	d.gone = true
	return d.check(ctx)
}

// check refuses a volume of a machine that is not defined any more, if somebody may
// have it open.
func (d *detach) check(ctx context.Context) error {
	if !d.gone {
		return nil
	}
	by, err := d.cluster.Watchers(ctx, d.volume)
	if err == nil && (d.host != d.owner.Host || len(by) > 0) {
		err = &disk.Error{Object: d.volume.String(), Kind: disk.ErrInUse, Holders: []string{d.owner.String()}}
	}
	return err
}

// volumeOf is the volume that a name or a target of the machine stands for.
func volumeOf(info domain.Info, volume string) (disk.Name, error) {
	if !targetForm.MatchString(volume) {
		n, err := disk.ParseVolume(volume)
		if err == nil && !strings.Contains(volume, "/") { // it may have been moved to another pool
			for _, has := range info.Disks {
				if has.Pool != "" && has.Image == n.Image {
					n.Pool = has.Pool
				}
			}
		}
		return n, err
	}
	for _, has := range info.Disks {
		if has.Target != volume {
			continue
		}
		if has.Pool == "" {
			return disk.Name{}, badInput("%s of %s is not in Ceph", volume, info.Name)
		}
		return disk.Name{Pool: has.Pool, Image: has.Image}, nil
	}
	return disk.Name{}, &domain.Error{Object: volume, Kind: domain.ErrNotFound, Reason: "no such disk in " + info.Name}
}

func (d *detach) unplug(ctx context.Context) error {
	if d.gone {
		return nil
	}
	waiting, cancel := d.h.guest(ctx)
	defer cancel()
	err := domain.Detach(waiting, d.conn, d.owner.UUID, d.volume.Pool, d.volume.Image)
	if ctx.Err() != nil && errors.Is(err, domain.ErrPending) {
		return errors.Join(ctx.Err(), err) // it was the caller who would not wait
	}
	return err
}

func (d *detach) release(ctx context.Context) error {
	return d.cluster.Release(ctx, d.volume, d.owner.UUID)
}
