// Asking a host to open disks, before a machine depends on it.

package domain

import (
	"context"
	"errors"
	"time"

	"github.com/google/uuid"
	"libvirt.org/go/libvirt"
	"libvirt.org/go/libvirtxml"
)

// Trial is what a host's QEMU is to open.
type Trial struct {
	VirtType string
	Arch     string
	Emulator string                  // its path on the host; "" is the host's own
	Disks    []libvirtxml.DomainDisk // as a machine's XML has them
}

// probePrefix is what the names of probes begin with.
const probePrefix = "vmdisk-probe-"

// Probe starts a paused machine that has only these disks, opened in this order: proof
// that the host's QEMU can open them. Nothing is written, so that the lock of an image
// stays with the machine that has it. While the machine is there,
// during is called; nil is not. If ctx ends first its error is returned and the machine,
// which may hang in opening a disk, is ended.
//
// Ending a machine takes QEMU longer than starting it, so Probe does not wait for
// that: ended tells what came of it. Of conn only the address is used.
func Probe(ctx context.Context, conn *libvirt.Connect, t Trial, during func(context.Context)) (ended <-chan error, err error) {
	name := probePrefix + uuid.NewString()
	xml, err := t.xml(name)
	if err != nil {
		return gone(), err
	}
	maker, err := Another(ctx, conn, 0)
	if err != nil {
		return gone(), err
	}
	var createErr error
	tried, seen, over := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	defer close(seen)
	go func() {
		// AUTODESTROY: should this process die, libvirt ends the probe.
		p, err := maker.DomainCreateXML(xml, libvirt.DOMAIN_START_PAUSED|libvirt.DOMAIN_START_AUTODESTROY)
		createErr = err
		close(tried)
		var ending error
		if err == nil {
			<-seen
			ending = errors.Join(p.Destroy(), p.Free())
		}
		_, err = maker.Close()
		over <- errors.Join(ending, err)
		close(over)
	}()
	select {
	case <-tried:
		if createErr == nil && during != nil {
			during(ctx)
		}
		return over, wrap("probe", "disks", createErr)
	case <-ctx.Done():
		return over, endProbe(ctx, conn, name, tried)
	}
}

// endTimeout is how long a probe that hangs may take to end.
const endTimeout = 10 * time.Second

// endProbe ends a machine that hangs while it is made, which makes the making
// fail. It may not be there yet at the first try.
func endProbe(over context.Context, conn *libvirt.Connect, name string, tried <-chan struct{}) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(over), endTimeout)
	defer cancel()
	ender, err := Another(ctx, conn, 0) // the maker's is waiting for the making
	if err != nil {
		return errors.Join(over.Err(), err)
	}
	defer func() { _, _ = Close(context.Background(), ender) }()
	for {
		err := Destroy(ctx, ender, name)
		select {
		case <-tried:
			return over.Err()
		case <-ctx.Done():
			return errors.Join(over.Err(), err)
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

// xml is the machine that a trial starts. A SCSI controller takes any number of disks.
func (t Trial) xml(name string) (string, error) {
	var tried []libvirtxml.DomainDisk
	for i := range t.Disks {
		tried = append(tried, onlyOpened(&t.Disks[i], uint(i)))
	}
	zero := uint(0)
	return (&libvirtxml.Domain{
		Type:   t.VirtType,
		Name:   name,
		Memory: &libvirtxml.DomainMemory{Value: 16, Unit: "MiB"},
		OS:     &libvirtxml.DomainOS{Type: &libvirtxml.DomainOSType{Arch: t.Arch, Type: "hvm"}},
		Devices: &libvirtxml.DomainDeviceList{
			Emulator: t.Emulator,
			Controllers: []libvirtxml.DomainController{
				{Type: "usb", Model: "none"},
				{Type: "scsi", Index: &zero, Model: "virtio-scsi"},
			},
			MemBalloon: &libvirtxml.DomainMemBalloon{Model: "none"},
			Disks:      tried,
		},
	}).Marshal()
}

// onlyOpened is a machine's disk with what decides whether it can be opened: source,
// key, format and cache, and not the hardware that it looks like.
func onlyOpened(has *libvirtxml.DomainDisk, unit uint) libvirtxml.DomainDisk {
	source, zero := *has.Source, uint(0)
	source.Index = 0
	d := libvirtxml.DomainDisk{
		Device: "disk", Auth: has.Auth, Source: &source, Encryption: has.Encryption, ReadOnly: has.ReadOnly,
		Target: &libvirtxml.DomainDiskTarget{Dev: "sd" + letters(int(unit)), Bus: "scsi"},
		Address: &libvirtxml.DomainAddress{Drive: &libvirtxml.DomainAddressDrive{
			Controller: &zero, Bus: &zero, Target: &zero, Unit: &unit}},
	}
	if has.Driver != nil {
		d.Driver = &libvirtxml.DomainDiskDriver{Name: has.Driver.Name, Type: has.Driver.Type,
			Cache: has.Driver.Cache, IO: has.Driver.IO, Discard: has.Driver.Discard}
	}
	if has.Device == "cdrom" {
		d.ReadOnly = &libvirtxml.DomainDiskReadOnly{}
	}
	return d
}

// CephDisks are the disks in a machine's XML that are in Ceph, and what each is called:
// POOL/IMAGE.
func CephDisks(d *libvirtxml.Domain) (all []libvirtxml.DomainDisk, names []string) {
	for _, has := range disks(d) {
		if source := rbdSource(has); source != nil {
			all, names = append(all, *has), append(names, source.Name)
		}
	}
	return all, names
}

// WithoutConf is a disk in Ceph that is opened without its ceph.conf: by the monitors
// and the key that the XML has. file is the path that it had, or "".
func WithoutConf(d libvirtxml.DomainDisk) (without libvirtxml.DomainDisk, file string) {
	source := rbdSource(&d)
	if source == nil || source.Config == nil {
		return d, ""
	}
	bare, network := *d.Source, *source
	network.Config = nil
	bare.Network = &network
	d.Source = &bare
	return d, source.Config.File
}
