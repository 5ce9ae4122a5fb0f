// Start and stop.

package vmdisk

import (
	"context"
	"errors"

	"github.com/vmdisk/vmdisk/domain"
	"github.com/vmdisk/vmdisk/secret"
)

// Start starts a machine, its disks' monitors and the secret brought up to date
// first. One that runs already is fine.
//
// Similar to: virsh start.
func (h *Host) Start(ctx context.Context, vm string) (VM, error) {
	const op = "start"
	var with session
	defer with.end()
	info, err := with.find(ctx, h, vm)
	if err != nil {
		return VM{}, failed(op, vm, err)
	}
	if err := h.belongsHere(ctx, &with, info.UUID); err != nil {
		return VM{}, failed(op, info.Name, err)
	}
	if !info.Running {
		var s secret.Secret
		steps := append([]step{h.secretStep(&with, "", &s)}, h.startSteps(with, info, &s)...)
		err := h.run(ctx, op, info.Name, steps...)
		if err != nil {
			return VM{}, err
		}
	}
	return h.outcome(ctx, with.conn, info.UUID)
}

// startSteps bring the disks' monitors and secret up to date and start a machine.
func (h *Host) startSteps(with session, info domain.Info, s *secret.Secret) []step {
	return []step{
		{name: "refresh", detail: says("monitors of " + info.Name), do: func(ctx context.Context) error {
			return h.redefine(ctx, with, info, s, keep)
		}},
		{name: "start", detail: says(info.Name),
			do:   func(ctx context.Context) error { return domain.Start(ctx, with.conn, info.UUID) },
			undo: func(ctx context.Context) error { return domain.Destroy(ctx, with.conn, info.UUID) }},
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
// Similar to: virsh shutdown, and waiting; or virsh destroy.
func (h *Host) Stop(ctx context.Context, vm string, force bool) (VM, error) {
	const op = "stop"
	conn, giveBack, err := h.borrow(ctx)
	if err != nil {
		return VM{}, failed(op, vm, err)
	}
	defer giveBack()
	info, err := domain.Find(ctx, conn, vm)
	if err != nil {
		return VM{}, failed(op, vm, err)
	}
	err = h.run(ctx, op, info.Name, step{name: "stop", detail: says(info.Name), do: func(ctx context.Context) error {
		if force {
			return domain.Destroy(ctx, conn, info.UUID)
		}
		ctx, cancel := h.guest(ctx)
		defer cancel()
		return domain.Shutdown(ctx, conn, info.UUID)
	}})
	var e *Error
	if errors.As(err, &e) && errors.Is(err, domain.ErrTimeout) {
		e.Next = "cut its power:  vmdisk stop --force " + info.Name
	}
	if err != nil {
		return VM{}, err
	}
	return h.outcome(ctx, conn, info.UUID)
}
