// Noticing what of a caller's XML would be lost: an element or attribute that the
// structs do not know disappears in them without a word.

package domain

import (
	"encoding/xml"
	"errors"
	"io"
	"slices"
	"strings"

	"libvirt.org/go/libvirtxml"
)

// checkLossless refuses XML that does not survive being read and written again,
// and names what would be lost. What is in <metadata> is kept as it is.
func checkLossless(text string, d *libvirtxml.Domain) error {
	again, err := d.Marshal()
	if err != nil {
		return err
	}
	has, err := paths(text)
	if err != nil {
		return invalid("domain XML", "%v", err)
	}
	kept, err := paths(again)
	if err != nil {
		return err
	}
	for _, path := range has {
		if !slices.Contains(kept, path) {
			return invalid("domain XML", "has %s, which is unknown here and would be lost", path)
		}
	}
	return nil
}

// paths are the elements and attributes of a document, as a/b and a/b@c.
func paths(text string) ([]string, error) {
	var all, at []string
	decoder := xml.NewDecoder(strings.NewReader(text))
	for {
		token, err := decoder.Token()
		if errors.Is(err, io.EOF) {
			return all, nil
		}
		if err != nil {
			return nil, err
		}
		switch t := token.(type) {
		case xml.StartElement:
			at = append(at, t.Name.Local)
			path := strings.Join(at, "/")
			all = append(all, path)
			for _, a := range t.Attr {
				if a.Name.Space != "xmlns" && a.Name.Local != "xmlns" && a.Value != "" {
					all = append(all, path+"@"+a.Name.Local)
				}
			}
			if path == "domain/metadata" {
				if err := decoder.Skip(); err != nil {
					return nil, err
				}
				at = at[:len(at)-1]
			}
		case xml.EndElement:
			at = at[:len(at)-1]
		}
	}
}
