// Asking a host to open a disk, before a machine depends on it.

package domain

import (
	"context"
	"errors"
	"time"

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
// that: ended tells what came of it. Of conn only the address is used.
func Probe(ctx context.Context, conn *libvirt.Connect, virtType string, d Disk) (ended <-chan error, err error) {
	// One connection to wait on, one to end it by.
	maker, err := Another(ctx, conn, 0)
	if err != nil {
		return gone(), err
	}
	ender, err := Another(ctx, conn, 0)
	if err != nil {
		_, _ = maker.Close()
		return gone(), err
	}
	defer func() { _, _ = ender.Close() }()
	name := "vmdisk-probe-" + uuid.NewString()
	xml, err := probeXML(name, virtType, d)
	if err != nil {
		_, _ = maker.Close()
		return gone(), err
	}
	var createErr error
	tried, over := make(chan struct{}), make(chan error, 1)
	go func() {
		// AUTODESTROY: should this process die, libvirt ends the probe.
		p, err := maker.DomainCreateXML(xml, libvirt.DOMAIN_START_PAUSED|libvirt.DOMAIN_START_AUTODESTROY)
		createErr = err
		close(tried)
		var ending error
		if err == nil {
			ending = errors.Join(p.Destroy(), p.Free())
		}
		_, err = maker.Close()
		over <- errors.Join(ending, err)
	}()
	select {
	case <-tried:
		return over, wrap("probe", d.Pool+"/"+d.Image, createErr)
	case <-ctx.Done():
		return over, endProbe(ender, name, tried, ctx.Err())
	}
}

// endTimeout is how long a probe that hangs may take to end.
const endTimeout = 10 * time.Second

// endProbe ends a machine that hangs while it is made, which makes the making
// fail. It may not be there yet at the first try.
func endProbe(conn *libvirt.Connect, name string, tried <-chan struct{}, cause error) error {
	ctx, cancel := context.WithTimeout(context.Background(), endTimeout)
	defer cancel()
	for {
		err := Destroy(ctx, conn, name)
		select {
		case <-tried:
			return cause
		case <-ctx.Done():
			return errors.Join(cause, err)
		case <-time.After(poll):
		}
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
