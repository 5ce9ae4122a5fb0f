// Asking a host to open a disk, before a machine depends on it.

package domain

import (
	"context"

	"github.com/google/uuid"
	"libvirt.org/go/libvirt"
	"libvirt.org/go/libvirtxml"
)

// Probe starts a paused machine that has only this disk, and ends it: proof that
// the host's QEMU can read it. Nothing is written; a disk with a Snapshot is
// opened read-only besides. If ctx ends first its error is returned and the
// machine, which may hang in opening the disk, is ended.
func Probe(ctx context.Context, conn *libvirt.Connect, virtType string, d Disk) error {
	d.Target, d.Serial = "vda", ""
	name := "vmdisk-probe-" + uuid.NewString()
	xml, err := (&libvirtxml.Domain{
		Type:   virtType,
		Name:   name,
		Memory: &libvirtxml.DomainMemory{Value: 16, Unit: "MiB"},
		OS:     &libvirtxml.DomainOS{Type: &libvirtxml.DomainOSType{Arch: "x86_64", Type: "hvm"}},
		Devices: &libvirtxml.DomainDeviceList{
			Controllers: []libvirtxml.DomainController{{Type: "usb", Model: "none"}},
			MemBalloon:  &libvirtxml.DomainMemBalloon{Model: "none"},
			Disks:       []libvirtxml.DomainDisk{d.device()},
		},
	}).Marshal()
	if err != nil {
		return err
	}
	done := make(chan error, 1)
	go func() {
		// AUTODESTROY: should this process die, libvirt ends the probe.
		p, err := conn.DomainCreateXML(xml, libvirt.DOMAIN_START_PAUSED|libvirt.DOMAIN_START_AUTODESTROY)
		if err == nil {
			err = p.Destroy()
			p.Free()
		}
		done <- err
	}()
	select {
	case err := <-done:
		return wrap("probe", d.Pool+"/"+d.Image, err)
	case <-ctx.Done():
		// Ending the machine makes the call above return with an error.
		if err := Destroy(context.WithoutCancel(ctx), conn, name); err != nil {
			return err
		}
		<-done
		return ctx.Err()
	}
}
