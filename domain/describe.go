// What a domain's XML says: its disks and which of them are in Ceph.

package domain

import (
	"net"
	"strings"

	"libvirt.org/go/libvirt"
	"libvirt.org/go/libvirtxml"
)

// Info describes a machine on its host.
type Info struct {
	Name    string
	UUID    string
	State   string // as virsh says it: "running", "shut off"
	Running bool   // it has a QEMU, be it paused
	// Emulated is that its CPUs are, by QEMU's TCG, and not virtualized.
	Emulated bool
	Disks    []DiskInfo
}

// DiskInfo is one disk of a machine. Pool and Image are "" for one that is not
// in Ceph.
type DiskInfo struct {
	Target string
	Pool   string
	Image  string
	Serial string
	Cache  string
	Source string // what a disk that is not in Ceph is
	QoS    QoS
	// Conf and Monitors say in which cluster it is: the ceph.conf that it names, "" for
	// the default, and the monitors, each HOST:PORT, with commas between.
	Conf     string
	Monitors string
}

// states are virsh's words.
var states = map[libvirt.DomainState]string{
	libvirt.DOMAIN_NOSTATE:     "no state",
	libvirt.DOMAIN_RUNNING:     "running",
	libvirt.DOMAIN_BLOCKED:     "idle",
	libvirt.DOMAIN_PAUSED:      "paused",
	libvirt.DOMAIN_SHUTDOWN:    "in shutdown",
	libvirt.DOMAIN_SHUTOFF:     "shut off",
	libvirt.DOMAIN_CRASHED:     "crashed",
	libvirt.DOMAIN_PMSUSPENDED: "pmsuspended",
}

func parse(text string) (*libvirtxml.Domain, error) {
	d := &libvirtxml.Domain{}
	if err := d.Unmarshal(text); err != nil {
		return nil, invalid("domain XML", "%v", err)
	}
	return d, nil
}

// Identity is the name and the UUID that a domain's XML has.
func Identity(text string) (name, uuid string, err error) {
	d, err := parse(text)
	if err != nil {
		return "", "", err
	}
	return d.Name, d.UUID, nil
}

// disks are pointers into the domain, for changing them.
func disks(d *libvirtxml.Domain) []*libvirtxml.DomainDisk {
	var all []*libvirtxml.DomainDisk
	if d.Devices != nil {
		for i := range d.Devices.Disks {
			all = append(all, &d.Devices.Disks[i])
		}
	}
	return all
}

func targets(d *libvirtxml.Domain) []string {
	var all []string
	for _, device := range disks(d) {
		if device.Target != nil {
			all = append(all, device.Target.Dev)
		}
	}
	return all
}

// rbdSource is a disk's source if it is in Ceph, else nil.
func rbdSource(d *libvirtxml.DomainDisk) *libvirtxml.DomainDiskSourceNetwork {
	if d.Source == nil || d.Source.Network == nil || d.Source.Network.Protocol != "rbd" {
		return nil
	}
	return d.Source.Network
}

// ParseDisks lists the disks in a domain's XML.
func ParseDisks(text string) ([]DiskInfo, error) {
	d, err := parse(text)
	if err != nil {
		return nil, err
	}
	return diskInfos(d), nil
}

func diskInfos(d *libvirtxml.Domain) []DiskInfo {
	all := []DiskInfo{}
	for _, device := range disks(d) {
		all = append(all, describe(device))
	}
	return all
}

func describe(d *libvirtxml.DomainDisk) DiskInfo {
	info := DiskInfo{Serial: d.Serial, QoS: qosOf(d)}
	if d.Target != nil {
		info.Target = d.Target.Dev
	}
	if d.Driver != nil {
		info.Cache = d.Driver.Cache
	}
	if source := rbdSource(d); source != nil {
		info.Pool, info.Image, _ = strings.Cut(source.Name, "/")
		if source.Config != nil {
			info.Conf = source.Config.File
		}
		all := make([]string, len(source.Hosts))
		for i, m := range source.Hosts {
			all[i] = net.JoinHostPort(m.Name, m.Port)
		}
		info.Monitors = strings.Join(all, ",")
		return info
	}
	switch {
	case d.Source == nil:
	case d.Source.File != nil:
		info.Source = d.Source.File.File
	case d.Source.Block != nil:
		info.Source = d.Source.Block.Dev
	case d.Source.Network != nil:
		info.Source = d.Source.Network.Protocol + ":" + d.Source.Network.Name
	}
	return info
}

// UUIDOf is the UUID that a domain XML has, or "".
func UUIDOf(text string) (uuid string, err error) {
	d, err := parse(text)
	if err != nil {
		return "", err
	}
	return d.UUID, nil
}
