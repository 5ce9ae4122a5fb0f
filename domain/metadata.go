// What vmdisk keeps in a definition's <metadata>: disks as they were before it changed
// them. Others keep theirs beside it.

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

// metadataURI is the namespace of what vmdisk keeps in <metadata>. libvirt keeps one
// element of each namespace and drops others without a word, so each kind has its own.
const metadataURI = "https://github.com/vmdisk/vmdisk"

// namespace is that of an element.
func namespace(element string) string {
	if element == inRescue {
		return metadataURI
	}
	return metadataURI + "/" + element
}

// kept is an element of vmdisk's.
type kept struct {
	Disks []libvirtxml.DomainDisk `xml:"disk"`
}

// addKept keeps a disk in an element of the metadata, beside what else is there.
func addKept(d *libvirtxml.Domain, element string, disk libvirtxml.DomainDisk) error {
	has, rest, err := readKept(d, element)
	if err != nil {
		return err
	}
	return writeKept(d, element, append(has, disk), rest)
}

// cutKept takes the first disk out of an element of the metadata, or that at a target if
// one is named. None is [ErrNotFound].
func cutKept(d *libvirtxml.Domain, element, target string) (libvirtxml.DomainDisk, error) {
	has, rest, err := readKept(d, element)
	if err != nil {
		return libvirtxml.DomainDisk{}, err
	}
	for i, disk := range has {
		if target == "" || disk.Target != nil && disk.Target.Dev == target {
			return disk, writeKept(d, element, slices.Delete(has, i, i+1), rest)
		}
	}
	return libvirtxml.DomainDisk{}, &Error{Object: element + " of " + d.Name, Kind: ErrNotFound, Reason: "is not in its metadata"}
}

// writeKept puts an element with disks behind the rest of the metadata.
func writeKept(d *libvirtxml.Domain, element string, disks []libvirtxml.DomainDisk, rest string) error {
	if len(disks) > 0 {
		rest += fmt.Sprintf("<vmdisk:%s xmlns:vmdisk=%q>", element, namespace(element))
		for i := range disks {
			text, err := disks[i].Marshal()
			if err != nil {
				return err
			}
			rest += text
		}
		rest += fmt.Sprintf("</vmdisk:%s>", element)
	}
	d.Metadata = nil
	if strings.TrimSpace(rest) != "" {
		d.Metadata = &libvirtxml.DomainMetadata{XML: rest}
	}
	return nil
}

// readKept are the disks in an element of the metadata, and the metadata without it.
func readKept(d *libvirtxml.Domain, element string) (disks []libvirtxml.DomainDisk, rest string, err error) {
	if d.Metadata == nil {
		return nil, "", nil
	}
	text := d.Metadata.XML
	decoder := xml.NewDecoder(strings.NewReader(text))
	for {
		from := decoder.InputOffset()
		token, err := decoder.Token()
		if errors.Is(err, io.EOF) {
			return nil, text, nil
		}
		if err != nil {
			return nil, "", invalid("metadata of "+d.Name, "%v", err)
		}
		start, ok := token.(xml.StartElement)
		if !ok {
			continue
		}
		if start.Name.Space != namespace(element) || start.Name.Local != element {
			if err := decoder.Skip(); err != nil {
				return nil, "", invalid("metadata of "+d.Name, "%v", err)
			}
			continue
		}
		var k kept
		if err := decoder.DecodeElement(&k, &start); err != nil {
			return nil, "", invalid("metadata of "+d.Name, "%v", err)
		}
		return k.Disks, text[:from] + text[decoder.InputOffset():], nil
	}
}
