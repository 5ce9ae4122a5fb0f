// Plugging disks in and out, in the running machine and in what it will start
// with next time.

package domain

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"libvirt.org/go/libvirt"
	"libvirt.org/go/libvirtxml"
)

// unplugAgain is how often a guest that has not let go is asked again. One that
// was still in its BIOS did not hear the first time.
const unplugAgain = 5 * time.Second

// Targets are a machine's taken targets, those of now and those of its next
// start.
func Targets(ctx context.Context, conn *libvirt.Connect, vm string) ([]string, error) {
	all, err := Disks(ctx, conn, vm)
	var targets []string
	for _, d := range all {
		if !slices.Contains(targets, d.Target) {
			targets = append(targets, d.Target)
		}
	}
	return targets, err
}

// Disks are a machine's disks, those of now and those of its next start.
func Disks(ctx context.Context, conn *libvirt.Connect, vm string) ([]DiskInfo, error) {
	return read(ctx, conn, vm, func(d *libvirt.Domain) (all []DiskInfo, err error) {
		for _, flags := range []libvirt.DomainXMLFlags{0, libvirt.DOMAIN_XML_INACTIVE} {
			found, err := devices(d, vm, flags)
			if err != nil {
				return nil, err
			}
			for _, device := range found {
				info := describe(device)
				if !slices.ContainsFunc(all, info.sameAs) {
					all = append(all, info)
				}
			}
		}
		return all, nil
	})
}

// sameAs says whether it is the same disk, whatever its limits are: those of now
// and of the next start can differ.
func (i DiskInfo) sameAs(o DiskInfo) bool {
	o.QoS = i.QoS
	return i == o
}

// Attach plugs a disk in: into the running machine, if it runs, and into its
// persistent definition. Without a target it gets the first that is free; vda is
// where a root disk goes, even if the machine has none. It returns the target. It
// is done when QEMU has opened the image; the guest sees the disk a moment later.
// A target that is taken is [ErrTargetInUse]; a machine whose slots are all taken
// [ErrNoSlot].
//
// Similar to: virsh attach-device --live --config.
func Attach(ctx context.Context, conn *libvirt.Connect, vm string, disk Disk) (target string, err error) {
	taken, err := Targets(ctx, conn, vm)
	if err != nil {
		return "", err
	}
	if disk.Target == "" {
		disk.Target = FreeTarget(append(taken, "vda"))
	}
	if slices.Contains(taken, disk.Target) {
		return "", &Error{Object: "VM " + vm, Kind: ErrTargetInUse, Reason: disk.Target + " is taken"}
	}
	xml, err := disk.XML()
	if err != nil {
		return "", err
	}
	return disk.Target, with(ctx, conn, vm, func(d *libvirt.Domain) error {
		flags, err := affect(d, vm)
		if err != nil {
			return err
		}
		return noSlot(vm, wrap("attach "+disk.Target+" to", vm, d.AttachDeviceFlags(xml, flags)))
	})
}

// noSlot tells the error of a machine without a free slot from others. libvirt has
// only words for it.
func noSlot(vm string, err error) error {
	var native libvirt.Error
	if errors.As(err, &native) && native.Code == libvirt.ERR_INTERNAL_ERROR && strings.Contains(native.Message, "No more available PCI slots") {
		return &Error{Object: "VM " + vm, Kind: ErrNoSlot, Err: native, Reason: "has no free slot to plug a disk into"}
	}
	return err
}

// affect is what a change must reach: the definition, and the running machine.
func affect(d *libvirt.Domain, vm string) (libvirt.DomainDeviceModifyFlags, error) {
	state, _, err := d.GetState()
	if err != nil {
		return 0, wrap("read state of", vm, err)
	}
	flags := libvirt.DOMAIN_DEVICE_MODIFY_CONFIG
	if hasQEMU(state) {
		flags |= libvirt.DOMAIN_DEVICE_MODIFY_LIVE
	}
	return flags, nil
}

// Detach plugs the disk with an RBD image out, from the persistent definition
// and from the running machine, and waits until the guest has let go of it and
// QEMU has closed the image. If ctx ends first it is [ErrPending]: the disk will
// not be there at the next start, may go at any time before, and must not be
// given to anybody yet. Run again, it goes on where it was; a disk that is
// nowhere is fine.
//
// Similar to: virsh detach-device --live --config, and waiting.
func Detach(ctx context.Context, conn *libvirt.Connect, vm, pool, image string) error {
	return with(ctx, conn, vm, func(d *libvirt.Domain) error {
		find := func(flags libvirt.DomainXMLFlags) (*libvirtxml.DomainDisk, error) {
			return findImage(d, vm, flags, pool, image)
		}
		kept, err := find(libvirt.DOMAIN_XML_INACTIVE)
		if err != nil {
			return err
		}
		if kept != nil {
			if err := unplug(d, vm, kept, libvirt.DOMAIN_DEVICE_MODIFY_CONFIG); err != nil {
				return err
			}
		}
		var asked time.Time
		var refusal error
		for {
			live, err := find(0)
			if err != nil || live == nil {
				return err
			}
			if time.Since(asked) > unplugAgain {
				asked = time.Now()
				// A refusal is kept and not final: QEMU refuses a second request
				// while the guest has not answered the first.
				refusal = unplug(d, vm, live, libvirt.DOMAIN_DEVICE_MODIFY_LIVE)
			}
			if err := pause(ctx); err != nil {
				return &Error{Op: "detach " + live.Target.Dev + " from", Object: vm, Kind: ErrPending,
					Err: errors.Join(err, refusal)}
			}
		}
	})
}

// unplug asks for one detach; that the device is not there is fine.
func unplug(d *libvirt.Domain, vm string, device *libvirtxml.DomainDisk, flags libvirt.DomainDeviceModifyFlags) error {
	xml, err := device.Marshal()
	if err != nil {
		return err
	}
	err = wrap("detach "+device.Target.Dev+" from", vm, d.DetachDeviceFlags(xml, flags))
	return ignore(err, ErrNotFound)
}

func findImage(d *libvirt.Domain, vm string, flags libvirt.DomainXMLFlags, pool, image string) (*libvirtxml.DomainDisk, error) {
	found, err := devices(d, vm, flags)
	if err != nil {
		return nil, err
	}
	for _, device := range found {
		if source := rbdSource(device); source != nil && source.Name == pool+"/"+image {
			return device, nil
		}
	}
	return nil, nil
}

// devices are a machine's disks of now, or those of its next start.
func devices(d *libvirt.Domain, vm string, flags libvirt.DomainXMLFlags) ([]*libvirtxml.DomainDisk, error) {
	text, err := d.GetXMLDesc(flags)
	if err != nil {
		return nil, wrap("read XML of", vm, err)
	}
	parsed, err := parse(text)
	if err != nil {
		return nil, err
	}
	return disks(parsed), nil
}

// Plugged says where a machine has an RBD image: in the running one, in its
// definition, and at which target.
func Plugged(ctx context.Context, conn *libvirt.Connect, vm, pool, image string) (target string, live, kept bool, err error) {
	type plugged struct {
		target     string
		live, kept bool
	}
	is, err := read(ctx, conn, vm, func(d *libvirt.Domain) (is plugged, err error) {
		for _, flags := range []libvirt.DomainXMLFlags{0, libvirt.DOMAIN_XML_INACTIVE} {
			device, err := findImage(d, vm, flags, pool, image)
			if err != nil {
				return is, err
			}
			if device == nil {
				continue
			}
			is.target = device.Target.Dev
			if flags == 0 {
				is.live = true
			} else {
				is.kept = true
			}
		}
		return is, nil
	})
	return is.target, is.live, is.kept, err
}
