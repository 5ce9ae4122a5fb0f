// Jobs: what libvirt is at with a machine that takes long, as a migration.

package domain

import (
	"context"

	"libvirt.org/go/libvirt"
)

// JobStats says how far libvirt is; nil if it is at nothing, or only begins.
//
// Similar to: virsh domjobinfo.
func JobStats(ctx context.Context, conn *libvirt.Connect, vm string) (*libvirt.DomainJobInfo, error) {
	return read(ctx, conn, vm, func(d *libvirt.Domain) (*libvirt.DomainJobInfo, error) {
		info, err := d.GetJobInfo()
		if err != nil || info.Type != libvirt.DOMAIN_JOB_UNBOUNDED {
			return nil, wrap("inspect", vm, err)
		}
		stats, err := d.GetJobStats(0)
		return stats, wrap("inspect", vm, err)
	})
}

// AbortJob has libvirt give up what it is at. A job that only begins is an error.
//
// Similar to: virsh domjobabort.
func AbortJob(ctx context.Context, conn *libvirt.Connect, vm string) error {
	return with(ctx, conn, vm, func(d *libvirt.Domain) error { return wrap("abort", vm, d.AbortJob()) })
}
