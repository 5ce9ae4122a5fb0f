// Dirty rate: what a guest writes to its memory, measured before it is moved.

package domain

import (
	"context"
	"time"

	"libvirt.org/go/libvirt"
)

// Load is what a guest gives a migration to do, in bytes.
type Load struct {
	// Memory is what can hold data: the guest's memory, or what its QEMU has resident,
	// if that is less. QEMU's own is in the latter, and in either are pages that hold
	// only zeros, which are hardly sent: it is an upper bound.
	Memory int64
	Dirty  int64 // how much memory is written in a second
}

const (
	samplePeriod = time.Second // libvirt takes no less
	samplePoll   = 25 * time.Millisecond
)

// MeasureLoad watches a running guest for a second. The guest does not slow down:
// QEMU hashes 512 pages in each GiB, at random, waits, hashes them again, and counts
// those that changed.
//
// So what is written again with what was there is not seen, though a migration sends
// it; a page that is written all the time counts once, though a migration sends it in
// every pass, be that of 100 ms; and what is small is seen by luck: of a region of
// 2 MiB one page is looked at on average, so that a guest of 128 MiB is known to
// about 7 MiB/s, in steps of 2, and 0 is less than that.
// Source: QEMU 7.2, migration/dirtyrate.c.
//
// It blocks for little more than a second, or until ctx ends; QEMU then goes on for the
// rest of it. No call may be made on the connection meanwhile that must not wait.
//
// Similar to: virsh domdirtyrate-calc, then domstats --dirtyrate and dommemstat.
func MeasureLoad(ctx context.Context, conn *libvirt.Connect, vm string) (l Load, err error) {
	err = with(ctx, conn, vm, func(d *libvirt.Domain) error {
		err := d.StartDirtyRateCalc(int(samplePeriod.Seconds()), libvirt.DOMAIN_DIRTYRATE_MODE_PAGE_SAMPLING)
		return wrap("measure dirty rate of", vm, err)
	})
	if err != nil {
		return l, err
	}
	begin := time.Now()
	if l.Memory, err = residentMemory(ctx, conn, vm); err != nil {
		return l, err
	}
	timer := time.NewTimer(samplePeriod - time.Since(begin))
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return l, ctx.Err()
		case <-timer.C:
			timer.Reset(samplePoll)
		}
		s, err := sampled(ctx, conn, vm)
		switch {
		case err != nil:
			return l, err
		case s != nil:
			l.Dirty = s.MegabytesPerSecond << 20
			return l, nil
		case time.Since(begin) > 10*samplePeriod:
			return l, &Error{Op: "measure dirty rate of", Object: vm, Kind: ErrTimeout, Reason: "QEMU does not come to an end with it"}
		}
	}
}

// sampled is what the last measurement came to; nil while it goes on.
func sampled(ctx context.Context, conn *libvirt.Connect, vm string) (*libvirt.DomainStatsDirtyRate, error) {
	return read(ctx, conn, vm, func(d *libvirt.Domain) (*libvirt.DomainStatsDirtyRate, error) {
		all, err := conn.GetAllDomainStats([]*libvirt.Domain{d}, libvirt.DOMAIN_STATS_DIRTYRATE, 0)
		if err != nil {
			return nil, wrap("measure dirty rate of", vm, err)
		}
		var found *libvirt.DomainStatsDirtyRate
		for _, one := range all {
			if r := one.DirtyRate; r != nil && r.MegabytesPerSecondSet &&
				libvirt.DomainDirtyRateStatus(r.CalcStatus) == libvirt.DOMAIN_DIRTYRATE_MEASURED {
				found = r
			}
			_ = one.Domain.Free() // it is a second reference to d
		}
		return found, nil
	})
}

// residentMemory is the guest's memory, or what its QEMU has resident, if that is less.
func residentMemory(ctx context.Context, conn *libvirt.Connect, vm string) (int64, error) {
	return read(ctx, conn, vm, func(d *libvirt.Domain) (int64, error) {
		stats, err := d.MemoryStats(uint32(libvirt.DOMAIN_MEMORY_STAT_NR), 0)
		if err != nil {
			return 0, wrap("read memory of", vm, err)
		}
		least := int64(0)
		for _, s := range stats {
			switch libvirt.DomainMemoryStatTags(s.Tag) {
			case libvirt.DOMAIN_MEMORY_STAT_ACTUAL_BALLOON, libvirt.DOMAIN_MEMORY_STAT_RSS:
				if bytes := int64(s.Val) << 10; least == 0 || bytes < least {
					least = bytes
				}
			}
		}
		return least, nil
	})
}
