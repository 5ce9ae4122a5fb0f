// QoS: how fast a machine may read and write a volume.

package vmdisk

import (
	"context"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/domain"
)

// limits are nil where there are none, so that JSON has no empty object.
func limits(q domain.QoS) *domain.QoS {
	if !q.Limited() {
		return nil
	}
	return &q
}

// QoS is what a machine's volume, named as for [Host.Detach], is limited to. A
// volume that the machine does not have is [domain.ErrNotFound].
//
// Similar to: virsh blkdeviotune without limits.
func (h *Host) QoS(ctx context.Context, vm, volume string) (Attachment, error) {
	var with session
	defer with.end()
	a, _, err := h.attachment(ctx, &with, vm, volume)
	return a, failed("inspect", volume+" of "+vm, err)
}

// SetQoS replaces a volume's limits, in the running machine and in its definition;
// the zero value lifts them all. They move with the machine and end with the
// detach. On failure the limits are what they were.
//
// Similar to: virsh blkdeviotune --live --config.
func (h *Host) SetQoS(ctx context.Context, vm, volume string, q domain.QoS) (Attachment, error) {
	const op = "limit"
	if err := q.Check(); err != nil {
		return Attachment{}, failed(op, volume+" of "+vm, err)
	}
	var with session
	defer with.end()
	if err := with.open(ctx, h); err != nil {
		return Attachment{}, failed(op, volume+" of "+vm, err)
	}
	a, uuid, err := h.attachment(ctx, &with, vm, volume)
	if err != nil {
		return Attachment{}, failed(op, volume+" of "+vm, err)
	}
	t := h.onMachine(&with, op, domain.Info{Name: a.VM, UUID: uuid}, a.Pool+"/"+a.Image)
	t.check = func(ctx context.Context) (err error) {
		a, _, err = h.attachment(ctx, &with, uuid, a.Pool+"/"+a.Image)
		return err
	}
	t.steps = func() []step {
		var had domain.QoS
		if a.QoS != nil {
			had = *a.QoS
		}
		return []step{{
			name: "limit", detail: says(a.Target + " to " + q.String()),
			do:   func(ctx context.Context) error { return domain.SetQoS(ctx, with.conn, uuid, a.Target, q) },
			back: []action{{Verb: actLimit, VM: uuid, Name: a.VM, To: a.Target, Host: with.host, QoS: &had}},
		}}
	}
	err = h.perform(ctx, t)
	if err == nil {
		a.QoS = limits(q)
	}
	return a, err
}

// attachment is a volume as a machine has it now, and the machine's UUID.
func (h *Host) attachment(ctx context.Context, with *session, vm, volume string) (a Attachment, uuid string, err error) {
	if err := with.openHost(ctx, h); err != nil {
		return a, "", err
	}
	info, err := domain.Find(ctx, with.conn, vm)
	if err != nil {
		return a, "", err
	}
	n, err := volumeOf(info, volume)
	if err != nil {
		return a, "", err
	}
	for _, d := range info.Disks {
		if d.Pool == n.Pool && d.Image == n.Image {
			return Attachment{VM: info.Name, Target: d.Target, Pool: d.Pool, Image: d.Image,
				Serial: disk.VolumeID(d.Image), QoS: limits(d.QoS)}, info.UUID, nil
		}
	}
	return a, "", &domain.Error{Object: n.String(), Kind: domain.ErrNotFound, Reason: "is not attached to " + info.Name}
}
