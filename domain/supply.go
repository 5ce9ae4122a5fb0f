// Supplying the disks of a domain that somebody else described: the caller keeps
// its own idea of a machine, vmdisk puts its disks in.

package domain

import (
	"fmt"
	"slices"

	"libvirt.org/go/libvirtxml"
)

// Supply puts a root disk into a caller's domain XML and gives it name and
// uuid. A disk without a source at the target (root.Target, or the first disk
// without a source where that is "") is a placeholder: it gets the source, the
// driver and the key's user, and keeps what else the caller said of it, its bus,
// address, boot order or limits. Where there is no placeholder the disk is added
// before the others, at the first free vdX. More disks take the placeholders that
// are left, in their order, and are then added behind the others. Everything else
// stays as it is; XML of which something would be lost is [ErrInvalid], and so is a
// name or UUID in the XML that differs, so that nothing is done to a machine that
// was not meant.
func Supply(text, name, uuid string, root Disk, more ...Disk) (string, error) {
	d, err := parse(text)
	if err != nil {
		return "", err
	}
	if err := checkLossless(text, d); err != nil {
		return "", err
	}
	if d.Name != "" && d.Name != name {
		return "", invalid("domain XML", "is for %q, not for %q", d.Name, name)
	}
	if d.UUID != "" && d.UUID != uuid {
		return "", invalid("domain XML", "has the UUID %s, not %s", d.UUID, uuid)
	}
	d.Name, d.UUID = name, uuid
	if d.Devices == nil {
		d.Devices = &libvirtxml.DomainDeviceList{}
	}
	for i, disk := range append([]Disk{root}, more...) {
		if err := place(d, disk, i == 0); err != nil {
			return "", err
		}
	}
	return d.Marshal()
}

// place fills a placeholder or adds the disk.
func place(d *libvirtxml.Domain, disk Disk, first bool) error {
	for i := range d.Devices.Disks {
		has := &d.Devices.Disks[i]
		if !placeholder(has) || disk.Target != "" && has.Target.Dev != disk.Target {
			continue
		}
		ours := disk.device()
		has.Device, has.Auth, has.Source = ours.Device, ours.Auth, ours.Source
		if ours.ReadOnly != nil {
			has.ReadOnly = ours.ReadOnly
		}
		if has.Driver == nil {
			has.Driver = ours.Driver
		}
		// What else the caller said of the driver (queues, iothread) stays.
		has.Driver.Name, has.Driver.Type, has.Driver.Cache = ours.Driver.Name, ours.Driver.Type, ours.Driver.Cache
		has.Driver.Discard, has.Driver.ErrorPolicy = ours.Driver.Discard, ours.Driver.ErrorPolicy
		if has.Target.Bus == "" {
			has.Target.Bus = ours.Target.Bus
		}
		return nil
	}
	taken := targets(d)
	if disk.Target == "" {
		disk.Target = FreeTarget(taken)
	}
	if slices.Contains(taken, disk.Target) {
		return &Error{Object: "domain XML", Kind: ErrTargetInUse,
			Reason: fmt.Sprintf("it has a disk of its own at %s", disk.Target)}
	}
	if first {
		d.Devices.Disks = append([]libvirtxml.DomainDisk{disk.device()}, d.Devices.Disks...)
	} else {
		d.Devices.Disks = append(d.Devices.Disks, disk.device())
	}
	return nil
}

// placeholder is a disk with a target and no source, which only a CD drive or a
// floppy may have.
func placeholder(d *libvirtxml.DomainDisk) bool {
	return sourceless(d.Source) && d.Target != nil && (d.Device == "" || d.Device == "disk")
}

// sourceless is a source that names nothing: libvirtxml makes one of the disk's
// type alone.
func sourceless(s *libvirtxml.DomainDiskSource) bool {
	switch {
	case s == nil:
		return true
	case s.Network != nil:
		return s.Network.Name == ""
	case s.File != nil:
		return s.File.File == ""
	case s.Block != nil:
		return s.Block.Dev == ""
	}
	return false
}

// FreeTarget is the first of vda, vdb … vdz, vdaa … that is not taken.
func FreeTarget(taken []string) string { return freeTarget("vd", taken) }

// freeTarget is FreeTarget for another bus: sda, hda …
func freeTarget(prefix string, taken []string) string {
	for i := 0; ; i++ {
		if target := prefix + letters(i); !slices.Contains(taken, target) {
			return target
		}
	}
}

// letters counts a … z, aa, ab … as the kernel names disks.
func letters(i int) string {
	s := string(rune('a' + i%26))
	if i < 26 {
		return s
	}
	return letters(i/26-1) + s
}
