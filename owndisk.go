// The disks that a machine is booted with besides its root disk: empty ones, swap,
// and the config drive.

package vmdisk

import (
	"context"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/domain"
)

// ownDisk is such a disk in the making.
type ownDisk struct {
	name disk.Name
	step string // the name of the step that makes it
	role string
	size int64
	// fill names the step that writes what is on it at first, write does it; both
	// are nothing for a disk that stays empty.
	fill  string
	write func(context.Context, *disk.Cluster) error
}

// ownDisks are those that the options ask for, in the order in which Nova gives
// them targets. Source: nova, virt/libvirt/blockinfo.py.
func ownDisks(pool, vm string, o BootOptions) ([]*ownDisk, error) {
	var all []*ownDisk
	add := func(step, role, image string, size int64) *ownDisk {
		d := &ownDisk{name: disk.Name{Pool: pool, Image: image}, step: step, role: role, size: size}
		all = append(all, d)
		return d
	}
	for i, size := range o.Ephemeral {
		if err := checkWholeMiB("ephemeral disk", size); err != nil {
			return nil, err
		}
		add("eph", disk.RoleEphemeral, disk.EphemeralDiskName(o.UUID, i), size)
	}
	if o.Swap != 0 {
		if err := checkWholeMiB("swap disk", o.Swap); err != nil {
			return nil, err
		}
		d := add("swap", disk.RoleSwap, disk.SwapDiskName(o.UUID), o.Swap)
		d.fill = "mkswap"
		d.write = func(ctx context.Context, c *disk.Cluster) error { return c.FormatSwap(ctx, d.name) }
	}
	if o.ConfigDrive != nil {
		if err := o.ConfigDrive.Check(); err != nil {
			return nil, err
		}
		data, err := o.ConfigDrive.Image(vm, o.UUID)
		if err != nil {
			return nil, err
		}
		d := add("config", disk.RoleConfig, disk.ConfigDiskName(o.UUID), int64(len(data)))
		d.fill = "fill"
		d.write = func(ctx context.Context, c *disk.Cluster) error { return c.WriteAll(ctx, d.name, data) }
	}
	return all, nil
}

func checkWholeMiB(what string, size int64) error {
	if size <= 0 || size%(1<<20) != 0 {
		return badInput("size of the %s is %d bytes, not a whole number of MiB above 0", what, size)
	}
	return nil
}

func (d *ownDisk) steps(c *disk.Cluster) []step {
	steps := []step{{
		name: d.step, detail: says(d.name.String() + ", " + disk.FormatSize(d.size)),
		do:   func(ctx context.Context) error { return c.CreateDisk(ctx, d.name, d.size) },
		back: []action{{Verb: actRemove, Image: d.name.String()}},
	}}
	if d.write != nil {
		steps = append(steps, step{name: d.fill, detail: d.name.String,
			do: func(ctx context.Context) error { return d.write(ctx, c) }})
	}
	return steps
}

// device is the disk as the machine has it: as the root disk, the image apart. The
// config drive is a virtio disk and not a CD: the cloud kernels of distributions
// have no driver for any other bus, and cloud-init goes by the label.
func (d *ownDisk) device(like domain.Disk) domain.Disk {
	like.Target, like.Image = "", d.name.Image
	like.ReadOnly = d.role == disk.RoleConfig
	return like
}
