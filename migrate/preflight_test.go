package migrate

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/vmdisk/vmdisk/domain"
	"github.com/vmdisk/vmdisk/lab"
	"libvirt.org/go/libvirtxml"
)

var testLab *lab.Lab

func TestMain(m *testing.M) { os.Exit(testMain(m)) }

func testMain(m *testing.M) int {
	l, done, err := lab.Borrow(context.Background())
	if err != nil {
		fmt.Fprintln(os.Stderr, "no lab:", err)
		return 1
	}
	defer func() { _ = done() }()
	testLab = l
	return m.Run()
}

// judged fails the test unless a check has come to what is wanted.
func judged(t *testing.T, c Check, want error, says string) {
	t.Helper()
	if c.OK != (want == nil) || !errors.Is(c.Err, want) || !strings.Contains(c.Detail, says) {
		t.Errorf("%s: %v, %s (%v); want %v with %q", c.Name, c.OK, c.Detail, c.Err, want, says)
	}
}

// asked is an inquiry about a machine with this XML that is to go to compute2.
func asked(t *testing.T, text string) *inquiry {
	t.Helper()
	xml := &libvirtxml.Domain{}
	if err := xml.Unmarshal(text); err != nil {
		t.Fatal(err)
	}
	if xml.Devices == nil {
		xml.Devices = &libvirtxml.DomainDeviceList{}
	}
	disks, err := domain.ParseDisks(text)
	if err != nil {
		t.Fatal(err)
	}
	q := &inquiry{xml: xml, info: domain.Info{Name: "web1", Disks: disks}}
	q.From.Hostname, q.To.Hostname = "compute1", "compute2"
	q.hw = domain.Hardware{VirtType: "qemu", Arch: "x86_64", Machine: "q35"}
	return q
}

// What only the source has, or may not have written yet, stays.
func TestPartsThatCannotMove(t *testing.T) {
	const rbd = `<source protocol='rbd' name='vms/x_disk'/><target dev='vda'/></disk>`
	for _, tt := range []struct {
		name, devices string
		want          error
		says, cure    string
	}{
		{"in Ceph", `<disk type='network'><driver cache='writeback'/>` + rbd, nil, "", ""},
		{"empty CD drive", `<disk type='file' device='cdrom'><target dev='sda'/></disk>`, nil, "", ""},
		{"medium", `<disk type='file' device='cdrom'><source file='/srv/a.iso'/><target dev='sda'/></disk>`, ErrUnsafe, "sda is /srv/a.iso", "--eject"},
		{"config drive", `<disk type='file'><source file='/srv/config.img'/><target dev='hda'/></disk>`, ErrUnsafe, "/srv/config.img", "detach-disk web1 hda"},
		{"block device", `<disk type='block'><source dev='/dev/sdb'/><target dev='vdb'/></disk>`, ErrUnsafe, "vdb is /dev/sdb", "detach-disk"},
		{"cache", `<disk type='network'><driver cache='unsafe'/>` + rbd, ErrUnsafe, "cache=unsafe", "virsh edit web1"},
		{"PCI", `<hostdev mode='subsystem' type='pci'><source><address domain='0' bus='3' slot='4' function='1'/></source></hostdev>`, ErrUnsafe, "PCI device 03:04.1 of compute1", "detach"},
		{"USB", `<hostdev mode='subsystem' type='usb'><source><vendor id='0x1'/></source></hostdev>`, ErrUnsafe, "a USB device", ""},
		{"folder", `<filesystem type='mount'><source dir='/srv/f'/><target dir='f'/></filesystem>`, ErrUnsafe, "/srv/f", "unmount"},
		{"TPM", `<tpm><backend type='passthrough'><device path='/dev/tpm0'/></backend></tpm>`, ErrUnsafe, "TPM of compute1", "emulated"},
		{"card", `<interface type='hostdev'><source><address type='pci' domain='0' bus='3' slot='4' function='1'/></source></interface>`, ErrUnsafe, "network card", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			q := asked(t, "<domain><devices>"+tt.devices+"</devices></domain>")
			found := false
			for _, c := range append(q.checkParts(), q.checkCache()...) {
				if !c.OK {
					found = true
					judged(t, c, tt.want, tt.says)
				}
				if !strings.Contains(c.Cure, tt.cure) && !c.OK {
					t.Errorf("cure is %q", c.Cure)
				}
			}
			if found != (tt.want != nil) {
				t.Errorf("found is %v", found)
			}
		})
	}
	q := asked(t, "<domain><devices><disk type='network'><driver cache='unsafe'/>"+rbd+"</devices></domain>")
	q.Offline = true
	judged(t, q.checkCache()[0], nil, "")
	q = asked(t, "<domain><os><type>hvm</type><kernel>/boot/k</kernel></os></domain>")
	if all := q.checkParts(); len(all) != 2 || !all[1].Warning || !strings.Contains(all[1].Detail, "/boot/k") {
		t.Errorf("%+v", all)
	}
}

// A destination that cannot give the guest its CPU, its machine type or its emulator
// says so.
func TestHardwareThatDiffers(t *testing.T) {
	conn, err := domain.Connect(t.Context(), testLab.Hosts[1].URI, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = conn.Close() })
	guest := func(machine, cpu string) *inquiry {
		q := asked(t, "<domain type='qemu'/>")
		if q.Dest, q.hw.Machine = conn, machine; cpu != "" {
			q.xml.CPU = &libvirtxml.DomainCPU{Match: "exact", Model: &libvirtxml.DomainCPUModel{Value: cpu, Fallback: "forbid"}}
		}
		return q
	}
	judged(t, guest("q35", "").checkMachine(t.Context()), nil, "q35")
	judged(t, guest("pc-q35-99.0", "").checkMachine(t.Context()), ErrUnfit, "pc-q35-99.0")
	judged(t, guest("q35", "").checkCPU(t.Context()), nil, "")
	judged(t, guest("q35", "qemu64").checkCPU(t.Context()), nil, "qemu64")
	judged(t, guest("pc-q35-99.0", "qemu64").checkCPU(t.Context()), nil, "qemu64") // one answer is enough
	judged(t, guest("q35", "no-such-cpu").checkCPU(t.Context()), ErrUnfit, "no-such-cpu")
	judged(t, guest("q35", "EPYC-Milan").checkCPU(t.Context()), ErrUnfit, "EPYC-Milan")

	q := guest("q35", "")
	q.xml.CPU = &libvirtxml.DomainCPU{Mode: "host-passthrough"}
	q.From.CPU, q.To.CPU = "Skylake-Client", "Skylake-Client"
	judged(t, q.checkCPU(t.Context()), nil, "Skylake-Client")
	q.To.Features = "vmx"
	judged(t, q.checkCPU(t.Context()), ErrUnfit, "another")

	q.Secret = &Check{Name: "secret", OK: true}
	q.xml.Devices.Disks = []libvirtxml.DomainDisk{{Auth: &libvirtxml.DomainDiskAuth{Secret: &libvirtxml.DomainDiskSecret{UUID: "11111111-1111-4111-8111-111111111111"}}}}
	all := q.checkSecrets(t.Context())
	judged(t, all[len(all)-1], ErrUnfit, "no libvirt secret 11111111")
}

// An older destination is a warning, of QEMU first.
func TestOlderVersions(t *testing.T) {
	q := asked(t, "<domain/>")
	v := func(lib, qemu domain.Version) domain.Versions { return domain.Versions{Libvirt: lib, QEMU: qemu} }
	for _, tt := range []struct {
		from, to domain.Versions
		says     string
	}{
		{v(9000000, 7002022), v(9000000, 7002022), ""},
		{v(9000000, 7002022), v(10001000, 8000000), ""},
		{v(9000000, 7002022), v(9000000, 6002000), "QEMU 6.2.0, older than compute1's 7.2.22"},
		{v(9000000, 7002022), v(8005000, 7002022), "libvirt 8.5.0"},
	} {
		c := q.checkVersions(tt.from, tt.to)
		if !c.OK || c.Warning != (tt.says != "") || !strings.Contains(c.Detail, tt.says) {
			t.Errorf("%v to %v: %+v", tt.from, tt.to, c)
		}
	}
}

// Only a client that was not there before shows that it is the same cluster.
func TestSameCluster(t *testing.T) {
	w := &identity{inquiry: asked(t, "<domain/>"), image: "vms/x_disk", before: []string{"client.1"}}
	w.FSID = "7df0"
	w.after = []string{"client.1", "client.2"}
	judged(t, w.check()[0], nil, "7df0")
	w.after = w.before
	judged(t, w.check()[0], ErrUnfit, "not that of cluster 7df0")
}
