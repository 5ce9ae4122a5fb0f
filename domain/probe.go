// Asking a host to open a disk, before a machine depends on it.

package domain

import (
	"context"
	"errors"

	"github.com/google/uuid"
	"libvirt.org/go/libvirt"
	"libvirt.org/go/libvirtxml"
)

// Probe starts a paused machine that has only this disk: proof that the host's
// QEMU can read it. Nothing is written; a disk with a Snapshot is opened
// read-only besides. If ctx ends first its error is returned and the machine,
// which may hang in opening the disk, is ended.
//
// Ending a machine takes QEMU longer than starting it, so Probe does not wait for
// that: ended tells what came of it. Receive from it before conn is closed.
func Probe(ctx context.Context, conn *libvirt.Connect, virtType string, d Disk) (ended <-chan error, err error) {
	name := "vmdisk-probe-" + uuid.NewString()
	xml, err := probeXML(name, virtType, d)
	if err != nil {
		return gone(), err
	}
	created, over := make(chan error, 1), make(chan error, 1)
	go func() {
		// AUTODESTROY: should this process die, libvirt ends the probe.
		p, err := conn.DomainCreateXML(xml, libvirt.DOMAIN_START_PAUSED|libvirt.DOMAIN_START_AUTODESTROY)
		created <- err
		if err == nil {
			over <- errors.Join(p.Destroy(), p.Free())
		} else {
			over <- nil
		}
	}()
	select {
	case err := <-created:
		return over, wrap("probe", d.Pool+"/"+d.Image, err)
	case <-ctx.Done():
		// Ending the machine makes the call above return with an error.
		if err := Destroy(context.WithoutCancel(ctx), conn, name); err != nil {
			return over, err
		}
		if err := <-over; err != nil {
			return gone(), err
		}
		return gone(), ctx.Err()
	}
}

// gone is for a probe that there is not.
func gone() <-chan error {
	c := make(chan error)
	close(c)
	return c
}

func probeXML(name, virtType string, d Disk) (string, error) {
	d.Target, d.Serial = "vda", ""
	return (&libvirtxml.Domain{
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
}
