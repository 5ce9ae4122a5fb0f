// What a host offers a machine: versions, emulators, machine types, CPUs, secrets.

package domain

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"libvirt.org/go/libvirt"
)

// Version is as libvirt counts: 9001002 is 9.1.2.
type Version uint32

// String is MAJOR.MINOR.RELEASE.
func (v Version) String() string { return fmt.Sprintf("%d.%d.%d", v/1000000, v/1000%1000, v%1000) }

// Versions are those of what runs a host's machines.
type Versions struct{ Libvirt, QEMU Version }

// DescribeVersions asks a host for its versions.
//
// Similar to: virsh version --daemon.
func DescribeVersions(ctx context.Context, conn *libvirt.Connect) (Versions, error) {
	return query(ctx, conn, "read versions of", "host", func() (Versions, error) {
		lib, err := conn.GetLibVersion()
		if err != nil {
			return Versions{}, err
		}
		qemu, err := conn.GetVersion()
		return Versions{Version(lib), Version(qemu)}, err
	})
}

// query is a bounded call whose error is translated.
func query[T any](ctx context.Context, conn *libvirt.Connect, op, object string, f func() (T, error)) (T, error) {
	if err := ctx.Err(); err != nil {
		var none T
		return none, err
	}
	return call(ctx, conn, op, object, func() (T, error) {
		value, err := f()
		return value, wrap(op, object, err)
	})
}

// Hardware is what a machine runs on.
type Hardware struct {
	VirtType string
	Emulator string // its path; "" is the host's own
	Arch     string
	Machine  string // machine type; "" is the host's own
}

// Offers is nil if a host has such hardware.
//
// Similar to: virsh domcapabilities.
func Offers(ctx context.Context, conn *libvirt.Connect, hw Hardware) error {
	_, err := query(ctx, conn, "ask for", hw.VirtType+" "+hw.Machine, func() (string, error) {
		return conn.GetDomainCapabilities(hw.Emulator, hw.Arch, hw.Machine, hw.VirtType, 0)
	})
	return err
}

// CompareCPU compares a CPU, as XML, with what a host's hypervisor can give.
//
// Similar to: virsh hypervisor-cpu-compare.
func CompareCPU(ctx context.Context, conn *libvirt.Connect, hw Hardware, cpu string) (libvirt.CPUCompareResult, error) {
	return query(ctx, conn, "compare", "CPU", func() (libvirt.CPUCompareResult, error) {
		return conn.CompareHypervisorCPU(hw.Emulator, hw.Arch, hw.Machine, hw.VirtType, cpu, 0)
	})
}

// HasSecret says whether a host has a libvirt secret of this UUID, whatever its value.
//
// Similar to: virsh secret-list.
func HasSecret(ctx context.Context, conn *libvirt.Connect, id string) (bool, error) {
	return query(ctx, conn, "find", "libvirt secret "+id, func() (bool, error) {
		s, err := conn.LookupSecretByUUIDString(id)
		if errors.Is(err, libvirt.ERR_NO_SECRET) {
			return false, nil
		}
		if err != nil {
			return false, err
		}
		return true, s.Free()
	})
}

// HasDevice says whether a host has a network device of this name: a bridge, or one
// that macvtap sits on.
//
// Similar to: virsh iface-list, and virsh nodedev-list --cap net.
func HasDevice(ctx context.Context, conn *libvirt.Connect, name string) (bool, error) {
	return query(ctx, conn, "find", "network device "+name, func() (bool, error) {
		if i, err := conn.LookupInterfaceByName(name); err == nil {
			return true, i.Free()
		}
		// libvirt may be built without the one driver or the other.
		all, err := conn.ListAllNodeDevices(libvirt.CONNECT_LIST_NODE_DEVICES_CAP_NET)
		found := false
		for i := range all {
			text, textErr := all[i].GetXMLDesc(0)
			found = found || textErr == nil && strings.Contains(text, "<interface>"+name+"</interface>")
			_ = all[i].Free()
		}
		return found, err
	})
}
