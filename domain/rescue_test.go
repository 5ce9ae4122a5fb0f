package domain

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
	"libvirt.org/go/libvirtxml"
)

// There and back nothing changes, with and without metadata of others; and on the
// way another disk is in the first one's place.
func TestRescue(t *testing.T) {
	const theirs = `<a:x xmlns:a="urn:a"><a:rescue>1</a:rescue></a:x>`
	for name, metadata := range map[string]string{"bare": "", "with metadata": theirs} {
		t.Run(name, func(t *testing.T) {
			text, err := machine().XML()
			if err != nil {
				t.Fatal(err)
			}
			d, err := parse(text)
			if err != nil {
				t.Fatal(err)
			}
			if metadata != "" {
				d.Metadata = &libvirtxml.DomainMetadata{XML: metadata}
			}
			slot := uint(5)
			d.Devices.Disks[0].Address = &libvirtxml.DomainAddress{PCI: &libvirtxml.DomainAddressPCI{Slot: &slot}}
			d.Devices.Disks[0].Boot = &libvirtxml.DomainDeviceBoot{Order: 1}
			if text, err = d.Marshal(); err != nil {
				t.Fatal(err)
			}
			with := root()
			with.Image += ".rescue"
			rescued, err := Rescue(text, "vms/"+root().Image, with)
			if err != nil {
				t.Fatal(err)
			}
			in, err := parse(rescued)
			if err != nil {
				t.Fatal(err)
			}
			first, own := in.Devices.Disks[0], in.Devices.Disks[1]
			if first.Source.Network.Name != "vms/"+with.Image || first.Target.Dev != "vda" || *first.Address.PCI.Slot != 5 || first.Boot.Order != 1 {
				t.Errorf("the first disk is %+v", first)
			}
			if own.Source.Network.Name != "vms/"+root().Image || own.Target.Dev != "vdc" || own.Address != nil || own.Boot != nil {
				t.Errorf("the own disk is %+v", own)
			}
			if _, err := Rescue(rescued, "vms/"+root().Image, with); !errors.Is(err, ErrExists) {
				t.Errorf("the second time the error is %v", err)
			}
			back, err := Unrescue(rescued, "vms/"+with.Image)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(text, back); diff != "" {
				t.Error(diff)
			}
			if _, err := Unrescue(back, "vms/"+with.Image); !errors.Is(err, ErrNotFound) {
				t.Errorf("unrescued twice the error is %v", err)
			}
		})
	}
}
