package domain

import (
	"context"

	"libvirt.org/go/libvirt"
)

// Flush has the QEMU of a machine that is paused write out all that its drivers have in
// their caches, also of what a block job copies to: what that wrote after the machine was
// paused, QEMU has flushed nowhere yet, and loses if it is killed. It blocks until that is
// on stable storage.
//
// QEMU flushes everything when it is told to stop, whether or not it runs; libvirt does not
// pass that on for a machine that is paused already, so QEMU is told directly, which libvirt
// notes as a taint ("custom-monitor"). Source: QEMU, softmmu/cpus.c, do_vm_stop.
//
// Similar to: virsh qemu-monitor-command VM '{"execute":"stop"}'.
func Flush(ctx context.Context, conn *libvirt.Connect, vm string) error {
	return with(ctx, conn, vm, func(d *libvirt.Domain) error {
		_, err := d.QemuMonitorCommand(`{"execute":"stop"}`, 0)
		return wrap("flush disks of", vm, err)
	})
}
