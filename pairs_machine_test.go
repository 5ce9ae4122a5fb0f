// The machines' workflows that TestInterrupted interrupts.

package vmdisk

import (
	"context"
	"testing"

	"github.com/google/uuid"
	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/domain"
)

var machinePairs = []reversible{
	{
		setup: func(t *testing.T, _ *Host) fixture { return fixture{VM: name(t), UUID: uuid.NewString()} },
		do:    workflow{name: "boot", run: bootPair(BootOptions{Image: "guest", Size: 100 << 20}), over: domain.ErrExists},
		undo:  workflow{name: "remove", run: removePair, over: domain.ErrNotFound},
	},
	{
		setup: func(t *testing.T, _ *Host) fixture {
			return fixture{VM: name(t), UUID: uuid.NewString(), File: origins(t).url("guest.qcow2")}
		},
		do: workflow{name: "boot from a URL", over: domain.ErrExists, run: func(ctx context.Context, h *Host, f fixture) error {
			return bootPair(BootOptions{Image: f.File, Size: 100 << 20, NoStart: true})(ctx, h, f)
		}},
		undo: workflow{name: "remove one booted from a URL", run: removePair, over: domain.ErrNotFound},
	},
	{
		setup: func(*testing.T, *Host) fixture { return fixture{UUID: uuid.NewString()} },
		do: workflow{name: "create disk", over: disk.ErrExists, run: func(ctx context.Context, h *Host, f fixture) error {
			_, err := h.CreateDisk(ctx, DiskOptions{Image: "guest", Size: 100 << 20, UUID: f.UUID})
			return err
		}},
		undo: workflow{name: "remove disk", over: disk.ErrNotFound, run: func(ctx context.Context, h *Host, f fixture) error {
			return h.RemoveDisk(ctx, f.UUID)
		}},
	},
	{
		setup: offWithVolume,
		do: workflow{name: "start", run: func(ctx context.Context, h *Host, f fixture) error {
			_, err := h.Start(ctx, f.VM)
			return err
		}},
		undo: workflow{name: "stop", run: func(ctx context.Context, h *Host, f fixture) error {
			_, err := h.Stop(ctx, f.VM, true)
			return err
		}},
	},
	{
		setup: offWithVolume,
		do:    workflow{name: "attach", run: attachPair, over: domain.ErrExists},
		undo:  workflow{name: "detach", run: detachPair, over: domain.ErrNotFound},
	},
	{
		// The guest runs: undoing an attach needs its consent.
		setup: func(t *testing.T, h *Host) fixture {
			v, vm := volume(t, h), guest(t, h)
			consoleOf(vm.Name).writes(t, 0, "vda")
			return fixture{VM: vm.Name, Volume: v.ID}
		},
		do:   workflow{name: "attach to a running guest", run: attachPair, over: domain.ErrExists},
		undo: workflow{name: "detach from a running guest", run: detachPair, over: domain.ErrNotFound},
	},
	{
		setup: func(t *testing.T, h *Host) fixture {
			f := offWithVolume(t, h)
			_, err := h.Attach(t.Context(), f.VM, f.Volume, AttachOptions{QoS: domain.QoS{TotalIopsSec: 100}})
			must(t, err)
			t.Cleanup(func() { _, _ = h.Detach(context.WithoutCancel(t.Context()), f.VM, f.Volume) })
			return f
		},
		do:   workflow{name: "limit", run: limitPair(domain.QoS{ReadBytesSec: 1 << 20, WriteBytesSec: 1 << 20})},
		undo: workflow{run: limitPair(domain.QoS{TotalIopsSec: 100})},
	},
	{
		setup: func(t *testing.T, h *Host) fixture {
			vm := guest(t, h)
			return fixture{VM: vm.Name, UUID: vm.UUID}
		},
		do: workflow{name: "migrate", run: func(ctx context.Context, h *Host, f fixture) error {
			_, err := h.Migrate(ctx, f.VM, testLab.Hosts[1].URI, MigrateOptions{})
			return err
		}, over: domain.ErrNotFound},
		undo: workflow{run: func(ctx context.Context, _ *Host, f fixture) error {
			return on(ctx, 1, func(h *Host) error {
				_, err := h.Migrate(ctx, f.VM, testLab.Hosts[0].URI, MigrateOptions{NoCheck: true})
				return err
			})
		}},
	},
	{
		setup: func(t *testing.T, h *Host) fixture {
			f := offWithVolume(t, h)
			must(t, attachPair(t.Context(), h, f))
			t.Cleanup(func() { _ = detachPair(context.WithoutCancel(t.Context()), h, f) })
			return f
		},
		do: workflow{name: "migrate offline", run: func(ctx context.Context, h *Host, f fixture) error {
			_, err := h.Migrate(ctx, f.VM, testLab.Hosts[1].URI, MigrateOptions{Offline: true})
			return err
		}, over: domain.ErrNotFound},
		undo: workflow{run: func(ctx context.Context, _ *Host, f fixture) error {
			return on(ctx, 1, func(h *Host) error {
				_, err := h.Migrate(ctx, f.VM, testLab.Hosts[0].URI, MigrateOptions{Offline: true})
				return err
			})
		}},
	},
}

// on works on another host of the lab.
func on(ctx context.Context, i int, work func(*Host) error) error {
	h, err := Open(ctx, config(i))
	if err != nil {
		return err
	}
	err = work(h)
	if e := h.Close(); err == nil {
		err = e
	}
	return err
}

// offWithVolume is a machine that is off, and a volume.
func offWithVolume(t *testing.T, h *Host) fixture {
	v := volume(t, h)
	vm := bootOf(t, h, BootOptions{Image: "guest", Memory: guestMemory, NoStart: true})
	return fixture{VM: vm.Name, UUID: vm.UUID, Volume: v.ID}
}

func bootPair(o BootOptions) func(context.Context, *Host, fixture) error {
	return func(ctx context.Context, h *Host, f fixture) error {
		o.UUID, o.Memory = f.UUID, guestMemory
		_, err := h.Boot(ctx, f.VM, o)
		return err
	}
}

func removePair(ctx context.Context, h *Host, f fixture) error {
	_, err := h.Remove(ctx, f.UUID)
	return err
}

func attachPair(ctx context.Context, h *Host, f fixture) error {
	_, err := h.Attach(ctx, f.VM, f.Volume, AttachOptions{})
	return err
}

func detachPair(ctx context.Context, h *Host, f fixture) error {
	_, err := h.Detach(ctx, f.VM, f.Volume)
	return err
}

func limitPair(q domain.QoS) func(context.Context, *Host, fixture) error {
	return func(ctx context.Context, h *Host, f fixture) error {
		_, err := h.SetQoS(ctx, f.VM, f.Volume, q)
		return err
	}
}

// evacuateWorkflow takes a machine from the first host to the second, though that answers.
var evacuateWorkflow = workflow{name: "evacuate", host: 1, run: func(ctx context.Context, h *Host, f fixture) error {
	_, err := h.Evacuate(ctx, f.VM, EvacuateOptions{From: "compute1", Force: true})
	return err
}}
