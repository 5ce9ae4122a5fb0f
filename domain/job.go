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

// LastJobStats says what the last thing took that libvirt was at. Who asks next gets the
// same answer.
//
// Similar to: virsh domjobinfo --completed --keep-completed.
func LastJobStats(ctx context.Context, conn *libvirt.Connect, vm string) (*libvirt.DomainJobInfo, error) {
	return read(ctx, conn, vm, func(d *libvirt.Domain) (*libvirt.DomainJobInfo, error) {
		stats, err := d.GetJobStats(libvirt.DOMAIN_JOB_STATS_COMPLETED | libvirt.DOMAIN_JOB_STATS_KEEP_COMPLETED)
		return stats, wrap("inspect", vm, err)
	})
}

// MigratableXML is a machine's definition as another host can run it, of now and of
// its next start, with what is secret in it.
//
// Similar to: virsh dumpxml --migratable, and --inactive.
func MigratableXML(ctx context.Context, conn *libvirt.Connect, vm string) (live, kept string, err error) {
	both, err := read(ctx, conn, vm, func(d *libvirt.Domain) (both [2]string, err error) {
		for i, flag := range []libvirt.DomainXMLFlags{libvirt.DOMAIN_XML_MIGRATABLE, libvirt.DOMAIN_XML_INACTIVE} {
			if both[i], err = d.GetXMLDesc(flag | libvirt.DOMAIN_XML_SECURE); err != nil {
				break
			}
		}
		return both, wrap("read XML of", vm, err)
	})
	return both[0], both[1], err
}

// AbortJob has libvirt give up what it is at. A job that only begins is an error.
//
// Similar to: virsh domjobabort.
func AbortJob(ctx context.Context, conn *libvirt.Connect, vm string) error {
	return with(ctx, conn, vm, func(d *libvirt.Domain) error { return wrap("abort", vm, d.AbortJob()) })
}
