// Watching a migration that somebody else runs, be it without vmdisk.

package migrate

import (
	"context"
	"time"

	"github.com/vmdisk/vmdisk/domain"
	"libvirt.org/go/libvirt"
)

// Look says how far a migration from a host is; nil if none is under way there.
//
// Similar to: virsh domjobinfo.
func Look(ctx context.Context, source *libvirt.Connect, vm string) (*Progress, error) {
	s, err := domain.JobStats(ctx, source, vm)
	if err != nil || s == nil || s.OperationSet && s.Operation != libvirt.DOMAIN_JOB_OPERATION_MIGRATION_OUT {
		return nil, err
	}
	c, err := domain.Glance(ctx, source, vm)
	if err != nil {
		return nil, err
	}
	p := progress(s, c)
	return &p, nil
}

// progress is what libvirt says of a job, and of its machine.
func progress(s *libvirt.DomainJobInfo, c domain.Condition) Progress {
	p := Progress{
		Phase: Copy, Total: int64(s.DataTotal), Done: int64(s.DataProcessed), Remaining: int64(s.DataRemaining),
		Rate: int64(s.MemBps), Dirty: int64(s.MemDirtyRate * s.MemPageSize),
		Elapsed: time.Duration(s.TimeElapsed) * time.Millisecond,
	}
	gain := p.Rate
	switch {
	case c.Postcopy:
		p.Phase = Postcopy
	case c.Paused && c.Moving:
		p.Phase = Handover
	case p.Total == 0:
		p.Phase = Setup
	default: // the guest writes meanwhile
		gain -= p.Dirty
	}
	if gain > 0 {
		p.Left = time.Duration(float64(p.Remaining) / float64(gain) * float64(time.Second))
	}
	return p
}

// Percent is how much of the memory is there, of 100. When the guest writes what is
// there already it falls.
func (p Progress) Percent() int {
	if p.Total <= 0 {
		return 0
	}
	return int(100 * max(0, p.Total-p.Remaining) / p.Total)
}
