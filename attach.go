// Attach: a volume into a machine, running or not.

package vmdisk

import (
	"context"
	"regexp"
	"slices"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/domain"
	"github.com/vmdisk/vmdisk/secret"
)

// AttachOptions say how a volume is attached.
type AttachOptions struct {
	Target string     // "vdb"; "" is the first free one
	QoS    domain.QoS // limits; the zero value is none
}

// Attachment is a volume in a machine.
type Attachment struct {
	VM     string `json:"vm"`
	Target string `json:"target"`
	Pool   string `json:"pool"`
	Image  string `json:"image"`
	Serial string `json:"serial"` // by which the guest finds it: /dev/disk/by-id/virtio-SERIAL

	QoS *domain.QoS `json:"qos,omitempty"` // nil is no limits
}

// targetForm is what a disk of a machine can be called, virtioForm what one that
// is attached can: it is virtio.
var (
	targetForm = regexp.MustCompile(`^(vd|sd|hd)[a-z]+$`)
	virtioForm = regexp.MustCompile(`^vd[a-z]+$`)
)

// attach is the state that the steps share.
type attach struct {
	session
	h      *Host
	vm     domain.Info
	volume disk.Name
	target string
	qos    domain.QoS
	secret secret.Secret
	has    bool // the volume is the machine's already, and is in it nowhere
}

// Attach plugs a volume (its ID, volume-ID or POOL/IMAGE) into a machine, the
// running one and its definition. Limits that exclude each other are
// [domain.ErrInvalid]. On failure nothing has changed. A volume that is open or belongs to another machine is [disk.ErrInUse], naming it; one that
// the machine has already [domain.ErrExists]; a taken target
// [domain.ErrTargetInUse].
//
// Similar to: virsh attach-device --live --config.
func (h *Host) Attach(ctx context.Context, vm, volume string, o AttachOptions) (Attachment, error) {
	const op = "attach"
	a := &attach{h: h, target: o.Target, qos: o.QoS}
	defer a.end()
	if err := a.prepare(ctx, vm, volume); err != nil {
		return Attachment{}, failed(op, volume+" to "+vm, err)
	}
	t := h.onMachine(&a.session, op, a.vm, a.volume.String())
	t.check, t.steps = a.check, a.steps
	err := h.perform(ctx, t)
	if err != nil {
		return Attachment{}, err
	}
	return Attachment{VM: a.vm.Name, Target: a.target, Pool: a.volume.Pool, Image: a.volume.Image,
		Serial: disk.VolumeID(a.volume.Image), QoS: limits(a.qos)}, nil
}

// steps of which the claim takes both back, in this order: a volume is given back
// when the guest has let go of it.
func (a *attach) steps() []step {
	unplug, release := a.onVolume(actUnplug), a.onVolume(actRelease)
	claim := step{name: "claim", detail: a.volume.String, do: a.claim, back: []action{unplug, release}}
	plug := step{name: "attach", detail: func() string { return a.volume.String() + " → " + a.target }, do: a.plug}
	if a.has {
		claim.back, plug.back = nil, []action{unplug}
	}
	return []step{a.h.secretStep(&a.session, "", &a.secret), claim, plug}
}

// onVolume is an action on the volume and the machine.
func (a *attach) onVolume(v verb) action {
	is := action{Verb: v, Image: a.volume.String(), VM: a.vm.UUID}
	if v == actUnplug {
		is.Host = a.host
	}
	return is
}

// prepare finds the machine and the volume.
func (a *attach) prepare(ctx context.Context, vm, volume string) (err error) {
	if a.target != "" && !virtioForm.MatchString(a.target) {
		return badInput("target %q is not of the form vdX", a.target)
	}
	if err = a.qos.Check(); err != nil {
		return err
	}
	if a.volume, err = disk.ParseVolume(volume); err != nil {
		return err
	}
	a.vm, err = a.find(ctx, a.h, vm)
	return err
}

// check refuses what cannot work, now that nobody else changes either.
func (a *attach) check(ctx context.Context) error {
	// QEMU would wait for a monitor that does not answer, and its guest with it.
	if _, err := a.cluster.Monitors(ctx); err != nil {
		return err
	}
	if err := a.checkTarget(ctx); err != nil {
		return err
	}
	if err := a.cluster.CheckVolume(ctx, a.volume); err != nil {
		return err
	}
	by, err := a.cluster.Watchers(ctx, a.volume)
	if err != nil {
		return err
	}
	owner, err := a.cluster.Owner(ctx, a.volume)
	if gone(err) != nil {
		return err
	}
	a.has = err == nil && owner.UUID == a.vm.UUID
	target, live, kept, err := domain.Plugged(ctx, a.conn, a.vm.UUID, a.volume.Pool, a.volume.Image)
	switch {
	case err != nil:
		return err
	case live && kept:
		return &domain.Error{Object: a.volume.String(), Kind: domain.ErrExists,
			Reason: "is attached to " + a.vm.Name + " already, as " + target}
	case live || kept:
		return &domain.Error{Object: a.volume.String(), Kind: domain.ErrPending,
			Reason: "is half detached from " + a.vm.Name + " (" + target + "); finish that first"}
	}
	return a.refuseOpen(ctx, by)
}

// checkTarget refuses a target that is taken before anything is done.
func (a *attach) checkTarget(ctx context.Context) error {
	if a.target == "" {
		return nil
	}
	taken, err := domain.Targets(ctx, a.conn, a.vm.UUID)
	if err == nil && slices.Contains(taken, a.target) {
		err = &domain.Error{Object: a.target + " of " + a.vm.Name, Kind: domain.ErrTargetInUse, Reason: "is taken"}
	}
	return err
}

// refuseOpen refuses a volume that somebody has open, and says who if vmdisk
// gave it to them.
func (a *attach) refuseOpen(ctx context.Context, by []disk.Watcher) error {
	if len(by) == 0 {
		return nil
	}
	e := &disk.Error{Object: a.volume.String(), Kind: disk.ErrInUse}
	if owner, err := a.cluster.Owner(ctx, a.volume); err == nil {
		e.Holders = append(e.Holders, owner.String())
	}
	for _, w := range by {
		e.Holders = append(e.Holders, w.String())
	}
	return e
}

func (a *attach) claim(ctx context.Context) error {
	_, err := a.cluster.Claim(ctx, a.volume, disk.Owner{VM: a.vm.Name, UUID: a.vm.UUID, Host: a.host})
	return err
}

func (a *attach) plug(ctx context.Context) error {
	d, err := a.h.rbdDisk(ctx, a.cluster, a.volume, a.secret.UUID)
	if err != nil {
		return err
	}
	d.Target, d.Serial, d.QoS = a.target, disk.VolumeID(a.volume.Image), a.qos
	target, err := domain.Attach(ctx, a.conn, a.vm.UUID, d)
	if target != "" {
		a.target = target
	}
	return err
}
