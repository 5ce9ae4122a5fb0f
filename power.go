// Start and stop.

package vmdisk

import (
	"context"
	"errors"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/domain"
	"github.com/vmdisk/vmdisk/secret"
)

// Start starts a machine, its disks' monitors and the secret brought up to date
// first, and what a QEMU that died has left of itself cleared away. One that runs
// already is fine.
//
// Similar to: virsh start.
func (h *Host) Start(ctx context.Context, vm string) (VM, error) {
	const op = "start"
	o := &outage{h: h, op: op}
	defer o.end()
	if err := o.find(ctx, vm); err != nil {
		return VM{}, failed(op, vm, err)
	}
	t := h.onMachine(&o.session, op, o.vm)
	t.check = o.findAgain
	t.steps = func() []step {
		if o.vm.Running {
			return nil
		}
		return append([]step{o.secretStep()}, o.startSteps()...)
	}
	if err := h.perform(ctx, t); err != nil {
		return VM{}, err
	}
	return h.outcome(ctx, o.conn, o.vm.UUID)
}

// startSteps bring the disks' monitors and secret up to date and start a machine.
func (o *outage) startSteps() []step {
	return []step{
		{name: "refresh", detail: says("monitors of " + o.vm.Name), do: func(ctx context.Context) error {
			return o.h.redefine(ctx, o.session, o.vm, &o.secret, keep)
		}},
		o.h.clearStep(&o.session, o.vm),
		{name: "start", detail: says(o.vm.Name), do: o.start, back: []action{o.on(actPowerOff)}, on: []action{o.on(actPowerOn)}},
	}
}

// redefine passes a machine's definition through change, with the monitors of now
// and the secret in its disks.
func (h *Host) redefine(ctx context.Context, with session, info domain.Info, s *secret.Secret, change func(string) (string, error)) error {
	monitors, err := with.cluster.Monitors(ctx)
	if err != nil {
		return err
	}
	return domain.Redefine(ctx, with.conn, info.UUID, func(old string) (string, bool, error) {
		xml, err := change(old)
		if err != nil {
			return "", false, err
		}
		xml, _, err = domain.Rewrite(xml, monitors, with.cluster.Conf(), s.UUID)
		return xml, xml != old, err
	})
}

// keep changes nothing.
func keep(xml string) (string, error) { return xml, nil }

// Stop asks the guest to power off and waits until it has; with force its power
// is cut instead. One that is off is fine. A guest that does not power off within
// [Config.Timeout] is [domain.ErrTimeout] and goes on running.
//
// If Ceph does not answer within [Config.Timeout], force cuts the power all the same,
// with a Warning: that needs no lease, for nobody begins to write by it.
//
// Similar to: virsh shutdown, and waiting; or virsh destroy.
func (h *Host) Stop(ctx context.Context, vm string, force bool) (VM, error) {
	v, err := h.stop(ctx, vm, force)
	if force && errors.Is(err, disk.ErrTimeout) {
		return h.cutPower(ctx, vm, err)
	}
	return v, err
}

// cutPower does without Ceph, which does not answer.
func (h *Host) cutPower(ctx context.Context, vm string, why error) (VM, error) {
	const op = "stop"
	var on session
	defer on.end()
	if err := on.openHost(ctx, h); err != nil {
		return VM{}, failed(op, vm, err)
	}
	info, err := domain.Find(ctx, on.conn, vm)
	if err != nil {
		return VM{}, failed(op, vm, err)
	}
	if err := domain.Destroy(ctx, on.conn, info.UUID); err != nil {
		return VM{}, failed(op, vm, err)
	}
	h.emit(Event{Kind: Warning, Op: op, Object: info.Name, Err: why,
		Detail: "its power is cut; Ceph does not answer, so its record there does not say so until:  vmdisk repair " + info.Name})
	if info, err = domain.Find(ctx, on.conn, info.UUID); err != nil {
		return VM{}, failed(op, vm, err)
	}
	return describeVM(info, on.host, nil), nil
}

func (h *Host) stop(ctx context.Context, vm string, force bool) (VM, error) {
	const op = "stop"
	o := &outage{h: h, op: op}
	defer o.end()
	if err := o.find(ctx, vm); err != nil {
		return VM{}, failed(op, vm, err)
	}
	t := h.onMachine(&o.session, op, o.vm)
	t.steps = steps(step{name: "stop", detail: says(o.vm.Name), do: func(ctx context.Context) error {
		if force {
			return domain.Destroy(ctx, o.conn, o.vm.UUID)
		}
		ctx, cancel := h.guest(ctx)
		defer cancel()
		return domain.Shutdown(ctx, o.conn, o.vm.UUID)
	}})
	err := h.perform(ctx, t)
	var e *Error
	if errors.As(err, &e) && errors.Is(err, domain.ErrTimeout) {
		e.Next = "cut its power:  vmdisk stop --force " + o.vm.Name
	}
	if err != nil {
		return VM{}, err
	}
	return h.outcome(ctx, o.conn, o.vm.UUID)
}
