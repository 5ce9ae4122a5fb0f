// Rescue: a machine's definition with another disk to boot from in the place of its
// own, and back. What was changed is kept in the definition itself, so that there
// is no moment in which the one is there and not the other.

package domain

import (
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"libvirt.org/go/libvirtxml"
)

// metadataURI is the namespace of what vmdisk keeps in <metadata>.
const metadataURI = "https://github.com/vmdisk/vmdisk"

// kept is vmdisk's element there: the disk as it was.
type kept struct {
	XMLName xml.Name              `xml:"https://github.com/vmdisk/vmdisk rescue"`
	Disk    libvirtxml.DomainDisk `xml:"disk"`
}

// Rescue gives the place of the disk root, POOL/IMAGE, to another: its target, its
// address on the bus and its turn in booting. The disk itself moves to the first
// free target; all others stay. A machine that is in rescue is [ErrExists].
func Rescue(text, root string, with Disk) (string, error) {
	d, err := parse(text)
	if err != nil {
		return "", err
	}
	switch _, _, err := cutKept(d); {
	case err == nil:
		return "", &Error{Object: d.Name, Kind: ErrExists, Reason: "is in rescue already"}
	case !errors.Is(err, ErrNotFound):
		return "", err
	}
	i := findSource(d, root)
	if i < 0 {
		return "", &Error{Object: d.Name, Kind: ErrNotFound, Reason: "has no disk " + root}
	}
	own := &d.Devices.Disks[i]
	was, err := own.Marshal()
	if err != nil {
		return "", err
	}
	d.Metadata = addKept(d.Metadata, was)
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
	was, rest, err := cutKept(d)
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
	d.Metadata = rest
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

// addKept adds vmdisk's element to what others have in the metadata.
func addKept(m *libvirtxml.DomainMetadata, disk string) *libvirtxml.DomainMetadata {
	if m == nil {
		m = &libvirtxml.DomainMetadata{}
	}
	return &libvirtxml.DomainMetadata{
		XML: m.XML + fmt.Sprintf("<vmdisk:rescue xmlns:vmdisk=%q>%s</vmdisk:rescue>", metadataURI, disk),
	}
}

// cutKept takes vmdisk's element out of the metadata; the rest is nil where it was
// all. No such element is [ErrNotFound].
func cutKept(d *libvirtxml.Domain) (disk libvirtxml.DomainDisk, rest *libvirtxml.DomainMetadata, err error) {
	notFound := &Error{Object: d.Name, Kind: ErrNotFound, Reason: "is not in rescue, or it was not vmdisk that put it there"}
	if d.Metadata == nil {
		return disk, nil, notFound
	}
	text := d.Metadata.XML
	decoder := xml.NewDecoder(strings.NewReader(text))
	for {
		from := decoder.InputOffset()
		token, err := decoder.Token()
		if errors.Is(err, io.EOF) {
			return disk, nil, notFound
		}
		if err != nil {
			return disk, nil, invalid("metadata of "+d.Name, "%v", err)
		}
		start, ok := token.(xml.StartElement)
		if !ok {
			continue
		}
		if start.Name.Space != metadataURI || start.Name.Local != "rescue" {
			if err := decoder.Skip(); err != nil {
				return disk, nil, invalid("metadata of "+d.Name, "%v", err)
			}
			continue
		}
		var k kept
		if err := decoder.DecodeElement(&k, &start); err != nil {
			return disk, nil, invalid("metadata of "+d.Name, "%v", err)
		}
		left := text[:from] + text[decoder.InputOffset():]
		if strings.TrimSpace(left) == "" {
			return k.Disk, nil, nil
		}
		return k.Disk, &libvirtxml.DomainMetadata{XML: left}, nil
	}
}
