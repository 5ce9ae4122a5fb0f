// What libvirt would refuse to migrate, asked of it without migrating.

package domain

import (
	"context"
	"errors"
	"fmt"

	"libvirt.org/go/libvirt"
)

// Rehearse has a host's libvirt begin to migrate a machine to dest, a libvirt URI, as
// it reaches that, and give up before either side has done anything: it is told to
// give the destination a definition that is none, which it looks at when it has
// decided to migrate the machine and has connected to dest. What it decides is
// [ErrImmovable]; any other error is that it could not connect. The guest notices
// nothing. Nothing but questions can be asked of the machine meanwhile, which takes
// long only if dest swallows what it is sent.
//
// Similar to: virsh migrate --p2p --xml, with a file that has no domain in it.
func Rehearse(ctx context.Context, conn *libvirt.Connect, vm, dest string, flags libvirt.DomainMigrateFlags) error {
	return with(ctx, conn, vm, func(d *libvirt.Domain) error {
		err := d.MigrateToURI3(dest, &libvirt.DomainMigrateParameters{DestXML: "<rehearsal/>", DestXMLSet: true}, flags)
		var native libvirt.Error
		switch {
		case errors.Is(err, libvirt.ERR_XML_ERROR), errors.Is(err, libvirt.ERR_XML_DETAIL):
			return nil
		case errors.As(err, &native) && native.Domain == libvirt.FROM_QEMU,
			errors.Is(err, libvirt.ERR_MIGRATE_UNSAFE), errors.Is(err, libvirt.ERR_OPERATION_INVALID):
			return &Error{Op: "begin to move", Object: vm, Kind: ErrImmovable, Err: err, Reason: Message(err)}
		}
		return &Error{Op: "connect to", Object: dest, Kind: ErrUnreachable, Err: err}
	})
}

// Hindrance is what must end before libvirt migrates a machine.
type Hindrance struct {
	What string // "has 2 snapshots"
	Cure string // what to type on its host
}

// Hindrances lists what libvirt keeps of a machine, or does with it, that cannot move.
//
// Similar to: virsh domjobinfo, snapshot-list, checkpoint-list, blockjob, dominfo.
func Hindrances(ctx context.Context, conn *libvirt.Connect, vm Info) ([]Hindrance, error) {
	return read(ctx, conn, vm.UUID, func(d *libvirt.Domain) (all []Hindrance, err error) {
		add := func(cure, format string, args ...any) {
			all = append(all, Hindrance{fmt.Sprintf(format, args...), fmt.Sprintf(cure, vm.Name)})
		}
		n, err := d.SnapshotNum(0)
		if err != nil {
			return nil, wrap("inspect", vm.Name, err)
		}
		if n > 0 {
			add("virsh snapshot-delete %s NAME --metadata", "has %d snapshots of libvirt's, which do not move", n)
		}
		points, err := d.ListAllCheckpoints(0)
		for i := range points {
			_ = points[i].Free()
		}
		if err == nil && len(points) > 0 {
			add("virsh checkpoint-delete %s NAME --metadata", "has %d checkpoints, which do not move", len(points))
		}
		if !vm.Running {
			saved, err := d.HasManagedSaveImage(0)
			if err == nil && saved {
				add("virsh start %s", "has its memory saved in a file of this host")
			}
			return all, wrap("inspect", vm.Name, err)
		}
		job, err := d.GetJobInfo()
		if err != nil {
			return nil, wrap("inspect", vm.Name, err)
		}
		if job.Type != libvirt.DOMAIN_JOB_NONE {
			add("virsh domjobabort %s", "has a job of libvirt's under way, as a backup or a migration")
		}
		for _, has := range vm.Disks {
			if has.Source == "" && has.Image == "" {
				continue
			}
			job, err := d.GetBlockJobInfo(has.Target, 0)
			if err == nil && job.Type != libvirt.DOMAIN_BLOCK_JOB_TYPE_UNKNOWN {
				add("virsh blockjob %s "+has.Target+" --abort", "has a job on %s under way, as a copy or a commit", has.Target)
			}
		}
		return all, nil
	})
}
