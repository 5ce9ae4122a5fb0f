// An outage: a machine is off while its disks change under it, and on again after
// that if it was on before.

package vmdisk

import (
	"context"
	"errors"

	"github.com/vmdisk/vmdisk/domain"
	"github.com/vmdisk/vmdisk/secret"
	"libvirt.org/go/libvirt"
)

// outage is what the workflows share that need a machine off.
type outage struct {
	session
	h      *Host
	op     string
	vm     domain.Info
	force  bool // cut the power at once
	secret secret.Secret
}

// find opens the connections and finds the machine.
func (o *outage) find(ctx context.Context, vm string) (err error) {
	o.vm, err = o.session.find(ctx, o.h, vm)
	return err
}

// findAgain looks at the machine again, now that nobody else changes it.
func (o *outage) findAgain(ctx context.Context) (err error) {
	o.vm, err = findOwn(ctx, o.cluster, o.conn, o.vm.UUID)
	return err
}

// on is an action on the machine.
func (o *outage) on(v verb) action {
	return action{Verb: v, VM: o.vm.UUID, Name: o.vm.Name, Host: o.host}
}

func (o *outage) start(ctx context.Context) error { return domain.Start(ctx, o.conn, o.vm.UUID) }

// secretStep makes sure of the secret that starting the machine needs.
func (o *outage) secretStep() step { return o.h.secretStep(&o.session, "", &o.secret) }

// begin stops the machine if it runs.
func (o *outage) begin() []step {
	if !o.vm.Running {
		return nil
	}
	return []step{{name: "stop", detail: says(o.vm.Name), do: o.stop, back: []action{o.on(actRestart)}}}
}

// finish starts the machine again if it ran.
func (o *outage) finish() []step {
	if !o.vm.Running {
		return nil
	}
	return o.startSteps()
}

// stop asks the guest to power off, and cuts its power if it has not done so in
// time: an outage is often for a guest that is broken. Source: nova,
// shutdown_timeout.
func (o *outage) stop(ctx context.Context) error {
	if o.force {
		return domain.Destroy(ctx, o.conn, o.vm.UUID)
	}
	waiting, cancel := o.h.guest(ctx)
	defer cancel()
	err := domain.Shutdown(waiting, o.conn, o.vm.UUID)
	switch {
	case ctx.Err() != nil:
		// The guest was asked and may yet obey: that is for restart to wait for.
		return errors.Join(ctx.Err(), &domain.Error{Op: "stop", Object: o.vm.Name, Kind: domain.ErrTimeout})
	case errors.Is(err, domain.ErrTimeout):
		o.h.emit(Event{Kind: Warning, Op: o.op, Object: o.vm.Name,
			Detail: o.vm.Name + " did not power off when asked; its power is cut"})
		return domain.Destroy(ctx, o.conn, o.vm.UUID)
	}
	return err
}

// restart takes a stop back, or one that was only asked for.
func (h *Host) restart(ctx context.Context, conn *libvirt.Connect, vm string) error {
	waiting, cancel := h.guest(ctx)
	defer cancel()
	err := domain.Shutdown(waiting, conn, vm)
	if err != nil && !errors.Is(err, domain.ErrTimeout) {
		return err
	}
	return domain.Start(ctx, conn, vm)
}
