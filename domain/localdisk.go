// A machine's disks that are files on its host.

package domain

import (
	"context"
	"errors"
	"fmt"

	"libvirt.org/go/libvirt"
	"libvirt.org/go/libvirtxml"
)

// LocalDisk is a disk that is a file on the machine's host.
type LocalDisk struct {
	Target string
	File   string
	Format string // "raw", "qcow2": as libvirt has QEMU open it
	Cache  string
	Drive  bool // it is the medium in a CD or floppy drive
}

// LocalDisks lists the disks in a domain's XML that are files on its host. A disk that
// is neither that nor in Ceph, and one that cannot be copied by itself, is an
// [ErrInvalid], in refused, by its target.
func LocalDisks(text string) (all []LocalDisk, refused map[string]error, err error) {
	d, err := parse(text)
	if err != nil {
		return nil, nil, err
	}
	all, refused = localDisks(d)
	return all, refused, nil
}

func localDisks(d *libvirtxml.Domain) (all []LocalDisk, refused map[string]error) {
	refused = map[string]error{}
	for _, device := range disks(d) {
		if device.Target == nil || rbdSource(device) != nil || sourceless(device.Source) {
			continue
		}
		if device.Source.File == nil {
			refused[device.Target.Dev] = invalid(device.Target.Dev, "is not in a file but on %s", elsewhere(device.Source))
			continue
		}
		local := LocalDisk{Target: device.Target.Dev, File: device.Source.File.File, Format: "raw",
			Drive: device.Device == "cdrom" || device.Device == "floppy"}
		if device.Driver != nil {
			local.Cache = device.Driver.Cache
			if device.Driver.Type != "" {
				local.Format = device.Driver.Type
			}
		}
		if why := alone(device); why != "" {
			refused[local.Target] = invalid(local.Target, "%s: %s", local.File, why)
		}
		all = append(all, local)
	}
	return all, refused
}

// alone says why a disk cannot be copied by itself, or "".
func alone(d *libvirtxml.DomainDisk) string {
	switch {
	case d.Device == "lun":
		return "the guest speaks SCSI to it"
	case d.Shareable != nil:
		return "it is shareable: other machines may write it"
	case d.Transient != nil:
		return "it is transient: what the guest writes is thrown away"
	case d.Encryption != nil || d.Source.Encryption != nil:
		return "libvirt encrypts it"
	case d.Mirror != nil:
		return "a block job is copying it"
	}
	return ""
}

// elsewhere is what a source is that is no file, in a few words.
func elsewhere(s *libvirtxml.DomainDiskSource) string {
	switch {
	case s.Block != nil:
		return "a block device, " + s.Block.Dev
	case s.Network != nil:
		return s.Network.Protocol + ", " + s.Network.Name
	case s.Volume != nil:
		return fmt.Sprintf("a volume of libvirt's, %s in %s", s.Volume.Volume, s.Volume.Pool)
	}
	return "something else"
}

// Relocating is how far the disk of a machine is on its way from one place to another.
type Relocating struct {
	Running, Paused bool
	Live            DiskInfo // what QEMU writes, if it runs
	Kept            DiskInfo // what the machine starts with
	Copying         bool     // a block job is
}

// Relocation looks where a machine's disk at a target is.
func Relocation(ctx context.Context, conn *libvirt.Connect, vm, target string) (Relocating, error) {
	return read(ctx, conn, vm, func(d *libvirt.Domain) (r Relocating, err error) {
		c, err := glance(d, vm)
		if err != nil {
			return r, err
		}
		r.Running, r.Paused = c.Running, c.Paused
		kept, err := atTarget(d, vm, libvirt.DOMAIN_XML_INACTIVE, target)
		if err != nil {
			return r, err
		}
		r.Kept = describe(kept)
		if !r.Running {
			return r, nil
		}
		live, err := atTarget(d, vm, 0, target)
		if err != nil {
			return r, err
		}
		r.Live, r.Copying = describe(live), live.Mirror != nil
		return r, nil
	})
}

// atTarget is a machine's disk of now, or of its next start.
func atTarget(d *libvirt.Domain, vm string, flags libvirt.DomainXMLFlags, target string) (*libvirtxml.DomainDisk, error) {
	all, err := devices(d, vm, flags)
	for _, device := range all {
		if device.Target != nil && device.Target.Dev == target {
			return device, nil
		}
	}
	if err == nil {
		err = &Error{Object: target + " of " + vm, Kind: ErrNotFound, Reason: "there is no such disk"}
	}
	return nil, err
}

// BackingFiles are the files below a disk of a running machine, as QEMU has them.
func BackingFiles(ctx context.Context, conn *libvirt.Connect, vm, target string) ([]string, error) {
	return read(ctx, conn, vm, func(d *libvirt.Domain) (all []string, err error) {
		device, err := atTarget(d, vm, 0, target)
		if err != nil {
			return nil, err
		}
		for b := device.BackingStore; b != nil && b.Source != nil && b.Source.File != nil; b = b.BackingStore {
			all = append(all, b.Source.File.File)
		}
		return all, nil
	})
}

// BlockSize is how large a running machine's guest sees a disk, in bytes.
//
// Similar to: virsh domblkinfo.
func BlockSize(ctx context.Context, conn *libvirt.Connect, vm, target string) (int64, error) {
	return read(ctx, conn, vm, func(d *libvirt.Domain) (int64, error) {
		info, err := d.GetBlockInfo(target, 0)
		if err != nil {
			return 0, wrap("read size of "+target+" of", vm, err)
		}
		return int64(info.Capacity), nil
	})
}

// errNoJob is a block job that is not there.
var errNoJob = errors.New("there is no block job")
