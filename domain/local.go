// What of a machine is only on its host, and would not be on another.

package domain

import (
	"context"

	"libvirt.org/go/libvirt"
)

// LocalState names what libvirt keeps of a machine that is off in files of its host:
// the memory of one that was saved, the variables of its firmware, the state of an
// emulated TPM; and its disks and drives that are files or devices there.
func LocalState(ctx context.Context, conn *libvirt.Connect, vm string) ([]string, error) {
	return read(ctx, conn, vm, func(d *libvirt.Domain) ([]string, error) {
		var all []string
		saved, err := d.HasManagedSaveImage(0)
		if err != nil {
			return nil, wrap("inspect", vm, err)
		}
		if saved {
			all = append(all, "saved memory (virsh managedsave-remove)")
		}
		text, err := d.GetXMLDesc(libvirt.DOMAIN_XML_INACTIVE)
		if err != nil {
			return nil, wrap("read XML of", vm, err)
		}
		xml, err := parse(text)
		if err != nil {
			return nil, err
		}
		if xml.OS != nil && xml.OS.NVRam != nil {
			all = append(all, "firmware's variables ("+xml.OS.NVRam.NVRam+")")
		}
		if xml.Devices == nil {
			return all, nil
		}
		for _, tpm := range xml.Devices.TPMs {
			if tpm.Backend != nil && tpm.Backend.Emulator != nil {
				all = append(all, "TPM's state")
			}
		}
		for _, device := range disks(xml) {
			if is := describe(device); is.Pool == "" && is.Source != "" {
				all = append(all, "disk "+is.Target+" ("+is.Source+")")
			}
		}
		return all, nil
	})
}
