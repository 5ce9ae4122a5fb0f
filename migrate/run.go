// Running a migration: started, watched, aborted when the caller's context ends.

package migrate

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/vmdisk/vmdisk/domain"
	"libvirt.org/go/libvirt"
)

// flags are those that Nova uses too: the machine keeps running, the hosts talk
// to each other directly, and its definition moves with it.
const flags = libvirt.MIGRATE_LIVE | libvirt.MIGRATE_PEER2PEER |
	libvirt.MIGRATE_PERSIST_DEST | libvirt.MIGRATE_UNDEFINE_SOURCE

// watchEvery is how often progress is asked for and reported.
const watchEvery = 100 * time.Millisecond

// Progress is how far a migration is. Sizes are in bytes.
type Progress struct {
	Total     int64 // memory to move; grows as the guest dirties it
	Done      int64
	Rate      int64 // bytes a second
	Dirty     int64 // bytes a second that the guest writes anew
	Remaining int64
	Elapsed   time.Duration
}

// Result is what a migration took.
type Result struct {
	Elapsed     time.Duration
	Downtime    time.Duration // how long the guest stood still
	Transferred int64         // bytes sent
}

// Move is a migration to run.
type Move struct {
	VM     string
	Source *libvirt.Connect
	// Watch is another connection to the source: one that a migration is waited
	// for on does not answer reliably before it is over.
	Watch   *libvirt.Connect
	Dest    *libvirt.Connect
	DestURI string // as the source host reaches the destination
	// Rewrite changes the machine's XML for the destination; nil leaves it.
	Rewrite func(xml string) (string, bool, error)
	Report  func(Progress) // or nil
}

// Run moves the machine and blocks until it runs on the destination. If ctx
// ends, the migration is aborted and Run returns ctx's error when the source is
// known to run; should the move have been complete by then, it is a success. On
// any error the machine runs on the source, unless the error is [ErrLost] or
// [ErrUnknown].
//
// Similar to: virsh migrate --live --p2p --persistent --undefinesource.
func Run(ctx context.Context, m Move) (Result, error) {
	d, err := m.Source.LookupDomainByName(m.VM)
	if err != nil {
		return Result{}, fmt.Errorf("find VM %s: %w", m.VM, err)
	}
	defer d.Free()
	params, err := m.params(d)
	if err != nil {
		return Result{}, err
	}
	watched, err := m.Watch.LookupDomainByName(m.VM)
	if err != nil {
		return Result{}, fmt.Errorf("find VM %s: %w", m.VM, err)
	}
	defer watched.Free()
	begin := time.Now()
	done := make(chan error, 1)
	go func() { done <- d.MigrateToURI3(m.DestURI, params, flags) }()
	if err := m.watch(ctx, watched, done, begin); err != nil {
		if err := m.settle(ctx, err); err != nil {
			return Result{}, err
		}
	}
	r := Result{Elapsed: time.Since(begin)}
	m.account(&r)
	return r, nil
}

// params carries the rewritten XML, of now and of the next start, if there is
// anything to rewrite.
func (m Move) params(d *libvirt.Domain) (*libvirt.DomainMigrateParameters, error) {
	p := &libvirt.DomainMigrateParameters{}
	if m.Rewrite == nil {
		return p, nil
	}
	live, err := d.GetXMLDesc(libvirt.DOMAIN_XML_MIGRATABLE | libvirt.DOMAIN_XML_SECURE)
	if err != nil {
		return nil, fmt.Errorf("read XML of %s: %w", m.VM, err)
	}
	kept, err := d.GetXMLDesc(libvirt.DOMAIN_XML_INACTIVE | libvirt.DOMAIN_XML_SECURE)
	if err != nil {
		return nil, fmt.Errorf("read XML of %s: %w", m.VM, err)
	}
	if p.DestXML, p.DestXMLSet, err = m.Rewrite(live); err != nil {
		return nil, err
	}
	p.PersistXML, p.PersistXMLSet, err = m.Rewrite(kept)
	return p, err
}

// watch reports progress until the migration is over, and asks libvirt to abort
// it when ctx ends: again and again, because a job that has not begun yet cannot
// be aborted.
func (m Move) watch(ctx context.Context, d *libvirt.Domain, done <-chan error, begin time.Time) error {
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	for {
		select {
		case err := <-done:
			return err
		case <-tick.C:
		}
		if ctx.Err() != nil {
			_ = d.AbortJob() // fails as long as there is nothing to abort
			continue
		}
		if m.Report == nil {
			continue
		}
		if info, err := d.GetJobInfo(); err == nil && info.Type == libvirt.DOMAIN_JOB_UNBOUNDED {
			m.report(d, begin)
		}
	}
}

func (m Move) report(d *libvirt.Domain, begin time.Time) {
	s, err := d.GetJobStats(0)
	if err != nil {
		return // it ended between the two calls
	}
	m.Report(Progress{
		Total: int64(s.DataTotal), Done: int64(s.DataProcessed), Remaining: int64(s.DataRemaining),
		Rate: int64(s.MemBps), Dirty: int64(s.MemDirtyRate * s.MemPageSize),
		Elapsed: time.Since(begin),
	})
}

// settle finds out where the machine is after libvirt reported failure; nil if it
// runs on the destination.
func (m Move) settle(ctx context.Context, cause error) error {
	after := context.WithoutCancel(ctx)
	here, err := domain.Find(after, m.Source, m.VM)
	if err == nil && here.Running {
		if ctx.Err() != nil && errors.Is(cause, libvirt.ERR_OPERATION_ABORTED) {
			return ctx.Err()
		}
		return &domain.Error{Op: "move to", Object: m.DestURI, Err: cause}
	}
	there, thereErr := domain.Find(after, m.Dest, m.VM)
	switch {
	case thereErr == nil && there.Running:
		return nil // it moved, whatever went wrong then
	case gone(here, err) && gone(there, thereErr):
		return fmt.Errorf("%w: %w", ErrLost, cause)
	}
	return fmt.Errorf("%w: %w", ErrUnknown, errors.Join(cause, err, thereErr))
}

// gone says that a host answered and that the machine does not run on it.
func gone(info domain.Info, err error) bool {
	return err == nil && !info.Running || errors.Is(err, domain.ErrNotFound)
}

// account asks the destination what the migration took. The machine has moved
// whether it answers or not, so figures that are missing stay 0.
func (m Move) account(r *Result) {
	d, err := m.Dest.LookupDomainByName(m.VM)
	if err != nil {
		return
	}
	defer d.Free()
	s, err := d.GetJobStats(libvirt.DOMAIN_JOB_STATS_COMPLETED)
	if err != nil {
		return
	}
	r.Downtime = time.Duration(s.Downtime) * time.Millisecond
	r.Transferred = int64(s.DataProcessed)
}
