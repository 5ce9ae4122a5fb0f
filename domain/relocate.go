// A machine's definition with a disk in another place: from a file of its host into
// Ceph, and back, and from one image there to another. What the guest sees of the disk
// stays as it was: target, address, serial, boot order; and so do its limits.

package domain

import (
	"regexp"

	"libvirt.org/go/libvirtxml"
)

// adopted is vmdisk's element in the metadata: a disk as it was in its file.
const adopted = "adopted"

// Adopt puts the disk at with.Target into Ceph. How it was is kept in the definition's
// metadata, for [Unadopt]. One that is there already is [ErrExists]. XML of which
// something would be lost is [ErrInvalid].
func Adopt(text string, with Disk) (string, error) {
	return relocate(text, with.Target, func(d *libvirtxml.Domain, own *libvirtxml.DomainDisk) error {
		if s := rbdSource(own); s != nil && s.Name == with.Pool+"/"+with.Image {
			return &Error{Object: with.Target + " of " + d.Name, Kind: ErrExists, Reason: "is in Ceph already"}
		}
		if err := addKept(d, adopted, *own); err != nil {
			return err
		}
		in := with.device()
		own.Auth, own.Source, own.BackingStore = in.Auth, in.Source, nil
		own.Driver = driverOf(own.Driver, in.Driver)
		return nil
	})
}

// driverOf keeps of a driver what does not depend on where the disk is (queues,
// threads) and takes the rest from another. io and metadata_cache are a file's.
func driverOf(own, in *libvirtxml.DomainDiskDriver) *libvirtxml.DomainDiskDriver {
	if own == nil {
		return in
	}
	merged := *own
	merged.Name, merged.Type, merged.Cache = in.Name, in.Type, in.Cache
	merged.Discard, merged.ErrorPolicy, merged.RErrorPolicy = in.Discard, in.ErrorPolicy, ""
	merged.IO, merged.MetadataCache, merged.DiscardNoUnref = "", nil, ""
	return &merged
}

// Unadopt puts the disk at a target into a file, as it was if [Adopt] has kept that of
// this file. One that is there already is [ErrExists].
func Unadopt(text, target, file, format string) (string, error) {
	return relocate(text, target, func(d *libvirtxml.Domain, own *libvirtxml.DomainDisk) error {
		if describe(own).Source == file {
			return &Error{Object: target + " of " + d.Name, Kind: ErrExists, Reason: "is in " + file + " already"}
		}
		in := fileDisk(target, file, format)
		in.Driver.Discard = "unmap"
		own.Auth, own.Source, own.Driver, own.BackingStore = nil, in.Source, driverOf(own.Driver, in.Driver), nil
		was, err := cutKept(d, adopted, target)
		if err != nil {
			return ignore(err, ErrNotFound)
		}
		if describe(&was).Source == file { // it goes back to where it was
			own.Source, own.Driver, own.BackingStore = was.Source, was.Driver, was.BackingStore
		}
		return nil
	})
}

// Move puts the disk at with.Target, which is in Ceph, into another image there, or in
// another cluster. Its driver stays as it was, too. One that is there already is [ErrExists]. A drive, and a
// disk that cannot be copied by itself, is [ErrInvalid].
func Move(text string, with Disk) (string, error) {
	return relocate(text, with.Target, func(d *libvirtxml.Domain, own *libvirtxml.DomainDisk) error {
		object := with.Target + " of " + d.Name
		s := rbdSource(own)
		switch {
		case s == nil:
			return invalid(object, "is not in Ceph")
		case s.Name == with.Pool+"/"+with.Image && sameConfig(s.Config, with.Conf):
			return &Error{Object: object, Kind: ErrExists, Reason: "is in " + s.Name + " already"}
		case own.Device != "" && own.Device != "disk":
			return invalid(object, "is a drive (%s), not a disk", own.Device)
		case own.ReadOnly != nil && sameConfig(s.Config, with.Conf):
			return invalid(object, "is read-only: nothing is written to it that would have to move")
		}
		if why := alone(own); why != "" {
			return invalid(object, "%s", why)
		}
		in := with.device()
		own.Auth, own.Source, own.BackingStore = in.Auth, in.Source, nil
		return nil
	})
}

// Adopted are the disks that [Adopt] has put into Ceph, as they were.
func Adopted(text string) ([]LocalDisk, error) {
	d, err := parse(text)
	if err != nil {
		return nil, err
	}
	all, _, err := readKept(d, adopted)
	if err != nil {
		return nil, err
	}
	files := &libvirtxml.Domain{Devices: &libvirtxml.DomainDeviceList{Disks: all}}
	was, _ := localDisks(files)
	return was, nil
}

// Forget drops what [Adopt] has kept of a disk: there is no way back.
func Forget(text, target string) (string, error) {
	d, err := parse(text)
	if err != nil {
		return "", err
	}
	if _, err := cutKept(d, adopted, target); err != nil {
		return text, ignore(err, ErrNotFound)
	}
	return d.Marshal()
}

// relocate changes the disk at a target.
func relocate(text, target string, change func(*libvirtxml.Domain, *libvirtxml.DomainDisk) error) (string, error) {
	d, err := parse(text)
	if err != nil {
		return "", err
	}
	if err := checkLossless(text, d); err != nil {
		return "", err
	}
	for _, own := range disks(d) {
		if own.Target == nil || own.Target.Dev != target {
			continue
		}
		if err := change(d, own); err != nil {
			return "", err
		}
		return d.Marshal()
	}
	return "", &Error{Object: target + " of " + d.Name, Kind: ErrNotFound, Reason: "there is no such disk"}
}

// Plain is a domain's XML in the form that [Adopt] gives it, for comparing.
func Plain(text string) (string, error) {
	d, err := parse(text)
	if err != nil {
		return "", err
	}
	text, err = d.Marshal()
	return emptyElements.ReplaceAllString(text, "$1/>"), err
}

// emptyElements are written out by encoding/xml.
var emptyElements = regexp.MustCompile(`(<[^<>/][^<>]*)></[A-Za-z0-9_:]+>`)
