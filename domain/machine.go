// A machine and its disks as libvirt XML. Always marshalled from structs, never
// from templates, so that no name can become markup.

package domain

import (
	"path/filepath"
	"regexp"
	"slices"

	"github.com/vmdisk/vmdisk/disk"
	"libvirt.org/go/libvirtxml"
)

// Machine is a virtual machine as vmdisk makes it by itself: virtio disks, a
// serial console and a channel for the guest agent.
type Machine struct {
	Name     string
	UUID     string
	Type     string // virtualization type: "kvm" or "qemu"
	Memory   int64  // bytes
	VCPUs    uint
	Networks []string // libvirt networks, one interface each
	Disks    []Disk   // the first is booted from
}

// Disk is an RBD image as a disk of a machine.
type Disk struct {
	Target     string // "vda"
	Pool       string
	Image      string
	User       string         // cephx user without "client."
	SecretUUID string         // libvirt secret with the user's key
	Monitors   []disk.Monitor // one <host> each
	Conf       string         // absolute path of ceph.conf
	Serial     string         // a volume's ID; "" on a root disk
	Snapshot   string         // opens this snapshot, read-only; "" is the image
	QoS        QoS            // limits; the zero value is none
	ReadOnly   bool           // the guest may not write
}

// ConsoleLog is where a machine's serial console is kept on its host, besides
// going to its pty: in libvirt's own folder for logs, rotated by virtlogd.
func ConsoleLog(name string) string {
	return filepath.Join("/var/log/libvirt/qemu", name+"-console.log")
}

// XML renders the machine.
func (m Machine) XML() (string, error) {
	console := uint(0)
	d := &libvirtxml.Domain{
		Type:   m.Type,
		Name:   m.Name,
		UUID:   m.UUID,
		Memory: &libvirtxml.DomainMemory{Value: uint(m.Memory / 1024), Unit: "KiB"},
		VCPU:   &libvirtxml.DomainVCPU{Value: m.VCPUs},
		OS: &libvirtxml.DomainOS{
			Type:        &libvirtxml.DomainOSType{Arch: "x86_64", Type: "hvm"},
			BootDevices: []libvirtxml.DomainBootDevice{{Dev: "hd"}},
		},
		Features: &libvirtxml.DomainFeatureList{
			ACPI: &libvirtxml.DomainFeature{},
			APIC: &libvirtxml.DomainFeatureAPIC{},
		},
		Clock: &libvirtxml.DomainClock{Offset: "utc"},
		Devices: &libvirtxml.DomainDeviceList{
			Controllers: []libvirtxml.DomainController{{Type: "usb", Model: "none"}},
			Serials: []libvirtxml.DomainSerial{{
				Source: &libvirtxml.DomainChardevSource{Pty: &libvirtxml.DomainChardevSourcePty{}},
				Target: &libvirtxml.DomainSerialTarget{Port: &console},
				Log:    &libvirtxml.DomainChardevLog{File: ConsoleLog(m.Name), Append: "on"},
			}},
			Channels: []libvirtxml.DomainChannel{{
				Source: &libvirtxml.DomainChardevSource{UNIX: &libvirtxml.DomainChardevSourceUNIX{}},
				Target: &libvirtxml.DomainChannelTarget{
					VirtIO: &libvirtxml.DomainChannelTargetVirtIO{Name: "org.qemu.guest_agent.0"},
				},
			}},
			RNGs: []libvirtxml.DomainRNG{{
				Model: "virtio",
				Backend: &libvirtxml.DomainRNGBackend{
					Random: &libvirtxml.DomainRNGBackendRandom{Device: "/dev/urandom"},
				},
			}},
		},
	}
	if m.Type == "kvm" {
		d.CPU = &libvirtxml.DomainCPU{Mode: "host-model"}
	}
	for _, network := range m.Networks {
		d.Devices.Interfaces = append(d.Devices.Interfaces, libvirtxml.DomainInterface{
			Model: &libvirtxml.DomainInterfaceModel{Type: "virtio"},
			Source: &libvirtxml.DomainInterfaceSource{
				Network: &libvirtxml.DomainInterfaceSourceNetwork{Network: network},
			},
		})
	}
	for _, disk := range m.Disks {
		d.Devices.Disks = append(d.Devices.Disks, disk.device())
	}
	return d.Marshal()
}

// XML renders the disk alone, as attaching it takes it.
func (d Disk) XML() (string, error) {
	device := d.device()
	return device.Marshal()
}

// device is the disk as DESIGN promises it to others: Nova refreshes monitor
// addresses only on disks without a serial and a ua- alias, Cinder's volumes have
// both.
func (d Disk) device() libvirtxml.DomainDisk {
	device := libvirtxml.DomainDisk{
		Device: "disk",
		Driver: &libvirtxml.DomainDiskDriver{
			Name: "qemu", Type: "raw", Cache: "writeback", ErrorPolicy: "stop", Discard: "unmap",
		},
		Auth: &libvirtxml.DomainDiskAuth{
			Username: d.User,
			Secret:   &libvirtxml.DomainDiskSecret{Type: "ceph", UUID: d.SecretUUID},
		},
		Source: &libvirtxml.DomainDiskSource{Network: &libvirtxml.DomainDiskSourceNetwork{
			Protocol: "rbd",
			Name:     d.Pool + "/" + d.Image,
			Hosts:    hosts(d.Monitors),
			Config:   config(d.Conf),
		}},
		Target: &libvirtxml.DomainDiskTarget{Dev: d.Target, Bus: "virtio"},
		Serial: d.Serial,
		IOTune: d.QoS.iotune(),
	}
	if d.Snapshot != "" {
		device.Source.Network.Snapshot = &libvirtxml.DomainDiskSourceNetworkSnapshot{Name: d.Snapshot}
	}
	if d.ReadOnly || d.Snapshot != "" {
		device.ReadOnly = &libvirtxml.DomainDiskReadOnly{}
	}
	if aliasable.MatchString(d.Serial) {
		device.Alias = &libvirtxml.DomainAlias{Name: "ua-" + d.Serial}
	}
	return device
}

// aliasable is what libvirt takes as a user's alias.
var aliasable = regexp.MustCompile(`^[A-Za-z0-9_-]+$`)

func hosts(monitors []disk.Monitor) []libvirtxml.DomainDiskSourceHost {
	var all []libvirtxml.DomainDiskSourceHost
	for _, m := range monitors {
		all = append(all, libvirtxml.DomainDiskSourceHost{Name: m.Host, Port: m.Port})
	}
	return all
}

// config names ceph.conf where it is not the one that librbd reads anyway.
func config(conf string) *libvirtxml.DomainDiskSourceNetworkConfig {
	if conf == "" || conf == disk.DefaultConf {
		return nil
	}
	return &libvirtxml.DomainDiskSourceNetworkConfig{File: conf}
}

// Rewrite changes a domain's XML for where it is to run: every RBD disk gets the
// monitors of now, so that no stale address survives, and, where secret is not
// "", that libvirt secret. Disks that name another ceph.conf than conf are in
// another cluster and left alone. It reports whether anything changed.
//
// Source: Nova refreshes the monitors at migration, virt/libvirt/migration.py.
func Rewrite(text string, monitors []disk.Monitor, conf, secret string) (string, bool, error) {
	d, err := parse(text)
	if err != nil {
		return "", false, err
	}
	changed := false
	want := hosts(monitors)
	for _, device := range disks(d) {
		source := rbdSource(device)
		if source == nil || !sameConfig(source.Config, conf) {
			continue
		}
		if !slices.Equal(source.Hosts, want) {
			source.Hosts, changed = want, true
		}
		auth := device.Auth
		if auth == nil { // where libvirt has it after a block copy
			auth = source.Auth
		}
		if secret != "" && auth != nil && auth.Secret != nil && auth.Secret.UUID != secret {
			auth.Secret.UUID, changed = secret, true
		}
	}
	if !changed {
		return text, false, nil
	}
	text, err = d.Marshal()
	return text, true, err
}

func sameConfig(has *libvirtxml.DomainDiskSourceNetworkConfig, conf string) bool {
	want := config(conf)
	if has == nil || want == nil {
		return has == nil && want == nil
	}
	return has.File == want.File
}
