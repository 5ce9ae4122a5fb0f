// Taking the medium out of a drive.

package domain

import (
	"context"

	"libvirt.org/go/libvirt"
)

// Eject takes the medium out of a machine's CD or floppy drive, now and for its next
// start.
//
// Similar to: virsh change-media --eject --force.
func Eject(ctx context.Context, conn *libvirt.Connect, vm, target string) error {
	return with(ctx, conn, vm, func(d *libvirt.Domain) error {
		live, err := d.IsActive()
		if err != nil {
			return wrap("inspect", vm, err)
		}
		kept, err := d.IsPersistent()
		if err != nil {
			return wrap("inspect", vm, err)
		}
		for _, one := range []struct {
			there bool
			xml   libvirt.DomainXMLFlags
			flags libvirt.DomainDeviceModifyFlags
		}{
			{live, 0, libvirt.DOMAIN_DEVICE_MODIFY_LIVE | libvirt.DOMAIN_DEVICE_MODIFY_FORCE},
			{kept, libvirt.DOMAIN_XML_INACTIVE, libvirt.DOMAIN_DEVICE_MODIFY_CONFIG},
		} {
			if !one.there {
				continue
			}
			if err := ejectFrom(d, vm, target, one.xml, one.flags); err != nil {
				return err
			}
		}
		return nil
	})
}

func ejectFrom(d *libvirt.Domain, vm, target string, flag libvirt.DomainXMLFlags, flags libvirt.DomainDeviceModifyFlags) error {
	text, err := d.GetXMLDesc(flag | libvirt.DOMAIN_XML_SECURE)
	if err != nil {
		return wrap("read XML of", vm, err)
	}
	xml, err := parse(text)
	if err != nil {
		return err
	}
	for _, device := range disks(xml) {
		if device.Target == nil || device.Target.Dev != target || sourceless(device.Source) {
			continue
		}
		device.Source, device.Auth, device.BackingStore = nil, nil, nil
		changed, err := device.Marshal()
		if err != nil {
			return invalid("disk "+target, "%v", err)
		}
		if err := d.UpdateDeviceFlags(changed, flags); err != nil {
			return wrap("eject "+target+" of", vm, err)
		}
	}
	return nil
}
