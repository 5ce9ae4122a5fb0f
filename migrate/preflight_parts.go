// What of a machine is on its host only, and what could lose writes: read from its
// XML, and what the destination must have in its place.

package migrate

import (
	"context"
	"errors"
	"fmt"

	"github.com/vmdisk/vmdisk/domain"
	"libvirt.org/go/libvirtxml"
)

// checkParts refuses what only the source has.
func (q *inquiry) checkParts() []Check {
	const name = "no local parts"
	var all []Check
	no := func(cure, format string, args ...any) {
		all = append(all, fail(name, ErrUnsafe, format, args...).on(q.From.Hostname, "%s", cure))
	}
	vm := q.info.Name
	for i := range q.xml.Devices.Disks {
		if c, found := q.checkDisk(&q.xml.Devices.Disks[i]); found {
			all = append(all, c)
		}
	}
	for _, h := range q.xml.Devices.Hostdevs {
		no("virsh edit "+vm+", or detach it:  virsh detach-device "+vm+" FILE", "it has %s of %s", hostdev(h), q.From.Hostname)
	}
	for _, f := range q.xml.Devices.Filesystems {
		no("unmount it in the guest, and:  virsh detach-device "+vm+" FILE", "it has a folder of %s, %s", q.From.Hostname, folder(f))
	}
	for _, i := range q.xml.Devices.Interfaces {
		if i.Source != nil && (i.Source.Hostdev != nil || i.Source.VDPA != nil) {
			no("virsh detach-interface "+vm+" hostdev", "it has a network card of %s's", q.From.Hostname)
		}
	}
	for _, t := range q.xml.Devices.TPMs {
		if t.Backend != nil && t.Backend.Passthrough != nil {
			no("virsh edit "+vm+": an emulated TPM moves", "it has the TPM of %s", q.From.Hostname)
		}
	}
	if len(all) == 0 {
		all = append(all, pass(name, "all disks are in Ceph"))
	}
	return append(all, q.checkFiles()...)
}

// checkDisk says what is wrong with where a disk is.
func (q *inquiry) checkDisk(d *libvirtxml.DomainDisk) (c Check, found bool) {
	const name = "no local parts"
	target, what := "", ""
	if d.Target != nil {
		target = d.Target.Dev
	}
	switch s := d.Source; {
	case s == nil:
	case s.File != nil:
		what = s.File.File
	case s.Block != nil:
		what = s.Block.Dev
	case s.Dir != nil:
		what = s.Dir.Dir
	case s.Volume != nil && s.Volume.Volume != "":
		what = s.Volume.Pool + "/" + s.Volume.Volume
	case s.NVME != nil:
		what = "an NVMe device"
	case s.VHostUser != nil, s.VHostVDPA != nil:
		what = "a vhost device"
	case s.Network != nil && s.Network.Protocol != "rbd" && s.Network.Protocol != "":
		return warn(name, "%s is %s:%s, which %s was not asked about", target, s.Network.Protocol, s.Network.Name, q.To.Hostname), true
	}
	if what == "" {
		return c, false
	}
	vm := q.info.Name
	c = fail(name, ErrUnsafe, "%s is %s and not in Ceph", target, what)
	if d.Device == "cdrom" || d.Device == "floppy" {
		return c.on(q.From.Hostname, "virsh change-media %s %s --eject", vm, target).
			by("took "+what+" out of "+target, func(ctx context.Context) error { return domain.Eject(ctx, q.Source, vm, target) }), true
	}
	return c.on(q.From.Hostname, "virsh detach-disk %s %s, or import it into Ceph", vm, target), true
}

func hostdev(h libvirtxml.DomainHostdev) string {
	switch {
	case h.SubsysPCI != nil:
		if s := h.SubsysPCI.Source; s != nil && s.Address != nil && s.Address.Bus != nil && s.Address.Slot != nil && s.Address.Function != nil {
			return fmt.Sprintf("the PCI device %02x:%02x.%x", *s.Address.Bus, *s.Address.Slot, *s.Address.Function)
		}
		return "a PCI device"
	case h.SubsysUSB != nil:
		return "a USB device"
	case h.SubsysSCSI != nil, h.SubsysSCSIHost != nil:
		return "a SCSI device"
	case h.SubsysMDev != nil:
		return "a mediated device"
	}
	return "a device"
}

func folder(f libvirtxml.DomainFilesystem) string {
	if f.Source != nil && f.Source.Mount != nil {
		return f.Source.Mount.Dir
	}
	return "a filesystem"
}

// checkFiles warns of files that libvirt does not copy and nobody can be asked about.
func (q *inquiry) checkFiles() []Check {
	os := q.xml.OS
	if os == nil {
		return nil
	}
	var all []Check
	for _, file := range []string{os.Kernel, os.Initrd, os.DTB} {
		if file != "" {
			all = append(all, warn("files", "it boots %s, which %s must have too", file, q.To.Hostname).on(q.To.Hostname, "ls -l %s", file))
		}
	}
	return all
}

// checkCache refuses a cache that could hold writes back from the destination. One
// that is shut off has none.
func (q *inquiry) checkCache() []Check {
	const name = "disk cache"
	var all []Check
	for _, d := range q.info.Disks {
		if d.Cache == "unsafe" && !q.Offline {
			all = append(all, fail(name, ErrUnsafe, "%s has cache=unsafe, which ignores flushes", d.Target).
				on(q.From.Hostname, "it takes a restart:  vmdisk stop %s; virsh edit %s", q.info.Name, q.info.Name))
		}
	}
	if len(all) == 0 {
		all = append(all, pass(name, "safe"))
	}
	return all
}

// checkNetworks looks for what the machine's network cards are connected to.
func (q *inquiry) checkNetworks(ctx context.Context) []Check {
	const name = "networks"
	var all []Check
	seen, fits := map[string]bool{}, 0
	for _, i := range q.xml.Devices.Interfaces {
		var c Check
		switch s := i.Source; {
		case s == nil:
			continue
		case s.Network != nil && !seen["network "+s.Network.Network]:
			seen["network "+s.Network.Network] = true
			c = q.checkNetwork(ctx, s.Network.Network)
		case s.Bridge != nil && !seen[s.Bridge.Bridge]:
			seen[s.Bridge.Bridge] = true
			c = q.checkDevice(ctx, "bridge", s.Bridge.Bridge)
		case s.Direct != nil && !seen[s.Direct.Dev]:
			seen[s.Direct.Dev] = true
			c = q.checkDevice(ctx, "device", s.Direct.Dev)
		case s.Ethernet != nil, s.VHostUser != nil:
			c = warn(name, "a card is connected by hand, which %s cannot be asked about", q.To.Hostname)
		default:
			continue
		}
		if c.OK && !c.Warning {
			fits++
			continue
		}
		all = append(all, c)
	}
	switch {
	case len(all) > 0:
	case fits == 0:
		all = append(all, pass(name, "it needs none"))
	default:
		all = append(all, pass(name, "%d of %d are there", fits, fits))
	}
	return all
}

func (q *inquiry) checkNetwork(ctx context.Context, network string) Check {
	const name = "networks"
	to := q.To.Hostname
	active, err := domain.NetworkActive(ctx, q.Dest, network)
	switch {
	case errors.Is(err, domain.ErrNotFound):
		return fail(name, ErrUnfit, "%s has no network %s", to, network).
			on(to, "virsh net-define FILE; virsh net-start %s", network).
			by("defined and started network "+network+" on "+to, func(ctx context.Context) error {
				return domain.CopyNetwork(ctx, q.Source, q.Dest, network)
			})
	case err != nil:
		return fail(name, err, "%s: %s", to, reason(err))
	case !active:
		return fail(name, ErrUnfit, "network %s of %s is not started", network, to).
			on(to, "virsh net-start %s", network).
			by("started network "+network+" on "+to, func(ctx context.Context) error {
				return domain.StartNetwork(ctx, q.Dest, network)
			})
	}
	return pass(name, "%s", network)
}

func (q *inquiry) checkDevice(ctx context.Context, kind, device string) Check {
	const name = "networks"
	has, err := domain.HasDevice(ctx, q.Dest, device)
	switch {
	case err != nil:
		return warn(name, "%s does not tell whether it has the %s %s", q.To.Hostname, kind, device).on(q.To.Hostname, "ip link show %s", device)
	case !has:
		return fail(name, ErrUnfit, "%s has no %s %s", q.To.Hostname, kind, device).on(q.To.Hostname, "ip link add %s type bridge; ip link set %s up", device, device)
	}
	return pass(name, "%s", device)
}
