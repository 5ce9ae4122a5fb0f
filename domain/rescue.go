// Rescue: a machine's definition with another disk to boot from in the place of its
// own, and back. What was changed is kept in the definition itself, so that there
// is no moment in which the one is there and not the other.

package domain

import (
	"errors"
	"slices"

	"libvirt.org/go/libvirtxml"
)

// inRescue is vmdisk's element in the metadata: the disk as it was.
const inRescue = "rescue"

// Rescue gives the place of the disk root, POOL/IMAGE, to another: its target, its
// address on the bus and its turn in booting. The disk itself moves to the first
// free target; all others stay. A machine that is in rescue is [ErrExists].
func Rescue(text, root string, with Disk) (string, error) {
	d, err := parse(text)
	if err != nil {
		return "", err
	}
	switch has, _, err := readKept(d, inRescue); {
	case err != nil:
		return "", err
	case len(has) > 0:
		return "", &Error{Object: d.Name, Kind: ErrExists, Reason: "is in rescue already"}
	}
	i := findSource(d, root)
	if i < 0 {
		return "", &Error{Object: d.Name, Kind: ErrNotFound, Reason: "has no disk " + root}
	}
	own := &d.Devices.Disks[i]
	if err := addKept(d, inRescue, *own); err != nil {
		return "", err
	}
	in := with.device()
	target := *own.Target
	in.Target, in.Address, in.Boot = &target, own.Address, own.Boot
	own.Target = &libvirtxml.DomainDiskTarget{Dev: freeTarget(target.Dev[:2], targets(d)), Bus: target.Bus}
	own.Address, own.Boot = nil, nil
	d.Devices.Disks = slices.Insert(d.Devices.Disks, i, in)
	return d.Marshal()
}

// Unrescue takes [Rescue] back: the disk that it put in is gone, named
// POOL/IMAGE by rescue, and the machine's own is as it was. Whatever else was
// changed meanwhile stays. A machine that Rescue did not change is [ErrNotFound].
func Unrescue(text, rescue string) (string, error) {
	d, err := parse(text)
	if err != nil {
		return "", err
	}
	was, err := cutKept(d, inRescue, "")
	if errors.Is(err, ErrNotFound) {
		err = &Error{Object: d.Name, Kind: ErrNotFound, Reason: "is not in rescue, or it was not vmdisk that put it there"}
	}
	if err != nil {
		return "", err
	}
	source := rbdSource(&was)
	if source == nil {
		return "", invalid(d.Name, "what it keeps of its own disk is damaged")
	}
	own := findSource(d, source.Name)
	if own < 0 {
		return "", &Error{Object: d.Name, Kind: ErrNotFound, Reason: "has no disk " + source.Name + " any more"}
	}
	d.Devices.Disks[own] = was
	if i := findSource(d, rescue); i >= 0 {
		d.Devices.Disks = slices.Delete(d.Devices.Disks, i, i+1)
	}
	return d.Marshal()
}

// findSource is the index of the disk with an RBD image, or -1.
func findSource(d *libvirtxml.Domain, image string) int {
	if d.Devices == nil {
		return -1
	}
	return slices.IndexFunc(d.Devices.Disks, func(device libvirtxml.DomainDisk) bool {
		source := rbdSource(&device)
		return source != nil && source.Name == image
	})
}
