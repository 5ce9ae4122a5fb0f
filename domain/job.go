// Jobs: what libvirt is at with a machine that takes long, as a migration.

package domain

import (
	"context"
	"time"

	"libvirt.org/go/libvirt"
)

// JobStats says how far libvirt is; nil if it is at nothing, or only begins.
//
// Similar to: virsh domjobinfo.
func JobStats(ctx context.Context, conn *libvirt.Connect, vm string) (*libvirt.DomainJobInfo, error) {
	return read(ctx, conn, vm, func(d *libvirt.Domain) (*libvirt.DomainJobInfo, error) {
		stats, err := d.GetJobStats(0)
		if err != nil || stats.Type != libvirt.DOMAIN_JOB_UNBOUNDED {
			return nil, wrap("inspect", vm, err)
		}
		return stats, nil
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

// BreakPostcopy cuts the connection of a migration that is in post-copy, where it
// cannot be aborted: the guest, on the destination, then stands still at the first page
// that has not come, until the migration is resumed.
//
// Similar to: virsh domjobabort --postcopy.
func BreakPostcopy(ctx context.Context, conn *libvirt.Connect, vm string) error {
	return with(ctx, conn, vm, func(d *libvirt.Domain) error {
		return wrap("interrupt post-copy of", vm, d.AbortJobFlags(libvirt.DOMAIN_ABORT_JOB_POSTCOPY))
	})
}

// StartPostcopy lets a guest that is being moved run on the destination from now on,
// where what has not come is fetched. The migration must have been begun for it.
//
// Similar to: virsh migrate-postcopy.
func StartPostcopy(ctx context.Context, conn *libvirt.Connect, vm string) error {
	return with(ctx, conn, vm, func(d *libvirt.Domain) error {
		return wrap("switch to post-copy", vm, d.MigrateStartPostCopy(0))
	})
}

// Suspend stops a machine's guest where it is.
//
// Similar to: virsh suspend.
func Suspend(ctx context.Context, conn *libvirt.Connect, vm string) error {
	return with(ctx, conn, vm, func(d *libvirt.Domain) error { return wrap("pause", vm, d.Suspend()) })
}

// MaxDowntime is how long a machine may stand still at the end of a migration, by what
// QEMU expects of the last part.
//
// Similar to: virsh migrate-getmaxdowntime.
func MaxDowntime(ctx context.Context, conn *libvirt.Connect, vm string) (time.Duration, error) {
	return read(ctx, conn, vm, func(d *libvirt.Domain) (time.Duration, error) {
		ms, err := d.MigrateGetMaxDowntime(0)
		return time.Duration(ms) * time.Millisecond, wrap("read downtime of", vm, err)
	})
}

// SetMaxDowntime sets that, before a migration or while one is under way.
//
// Similar to: virsh migrate-setmaxdowntime.
func SetMaxDowntime(ctx context.Context, conn *libvirt.Connect, vm string, most time.Duration) error {
	return with(ctx, conn, vm, func(d *libvirt.Domain) error {
		return wrap("set downtime of", vm, d.MigrateSetMaxDowntime(uint64(most.Milliseconds()), 0))
	})
}
