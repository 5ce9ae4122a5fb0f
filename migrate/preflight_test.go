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

// What only the source can read, or may not have written yet, stays.
func TestDisksThatCannotMove(t *testing.T) {
	root := domain.DiskInfo{Target: "vda", Pool: "vms", Image: "x_disk", Cache: "writeback"}
	for _, tt := range []struct {
		name string
		disk domain.DiskInfo
		want error
		says string
	}{
		{"volume", domain.DiskInfo{Target: "vdb", Pool: "volumes", Image: "volume-x"}, nil, "all in Ceph"},
		{"empty CD drive", domain.DiskInfo{Target: "sda"}, nil, ""},
		{"local cdrom", domain.DiskInfo{Target: "sda", Source: "/srv/rescue.iso"}, ErrUnsafe, "/srv/rescue.iso"},
		{"local config drive", domain.DiskInfo{Target: "hda", Source: "/var/lib/config.img"}, ErrUnsafe, "hda"},
		{"cache unsafe", domain.DiskInfo{Target: "vdb", Pool: "volumes", Image: "volume-x", Cache: "unsafe"}, ErrUnsafe, "cache=unsafe"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			judged(t, checkDisks(domain.Info{Disks: []domain.DiskInfo{root, tt.disk}}), tt.want, tt.says)
		})
	}
}

// A destination that cannot give the guest its CPU or its machine type says so.
func TestHardwareThatDiffers(t *testing.T) {
	conn, err := domain.Connect(t.Context(), testLab.Hosts[1].URI, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = conn.Close() })
	to := domain.Node{Hostname: testLab.Hosts[1].Name}
	guest := func(machine, cpu string) *libvirtxml.Domain {
		d := &libvirtxml.Domain{Type: "qemu", OS: &libvirtxml.DomainOS{Type: &libvirtxml.DomainOSType{Arch: "x86_64", Machine: machine}}}
		if cpu != "" {
			d.CPU = &libvirtxml.DomainCPU{Match: "exact", Model: &libvirtxml.DomainCPUModel{Value: cpu, Fallback: "forbid"}}
		}
		return d
	}
	judged(t, checkMachine(conn, to, guest("q35", "")), nil, "q35")
	judged(t, checkMachine(conn, to, guest("pc-q35-99.0", "")), ErrUnfit, "pc-q35-99.0")
	judged(t, checkCPU(conn, to, guest("q35", "")), nil, "")
	judged(t, checkCPU(conn, to, guest("q35", "qemu64")), nil, "qemu64")
	judged(t, checkCPU(conn, to, guest("q35", "no-such-cpu")), ErrUnfit, "no-such-cpu")
}
