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
// [ErrUnknown]. A source that does not answer is ErrUnknown too, and its connections
// are [domain.Lost].
//
// Similar to: virsh migrate --live --p2p --persistent --undefinesource.
func Run(ctx context.Context, m Move) (Result, error) {
	d, err := m.Source.LookupDomainByName(m.VM)
	if err != nil {
		return Result{}, fmt.Errorf("find VM %s: %w", m.VM, err)
	}
	params, err := m.params(d)
	if err != nil {
		return Result{}, errors.Join(err, d.Free())
	}
	begin := time.Now()
	done := make(chan error, 1)
	go func() {
		err := d.MigrateToURI3(m.DestURI, params, flags)
		_ = d.Free()
		done <- err
	}()
	if err := m.watch(ctx, done, begin); err != nil {
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
func (m Move) watch(ctx context.Context, done <-chan error, begin time.Time) error {
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	after := context.WithoutCancel(ctx)
	for {
		select {
		case err := <-done:
			return err
		case <-tick.C:
		}
		var err error
		if ctx.Err() != nil {
			err = domain.AbortJob(after, m.Watch, m.VM) // fails as long as there is nothing to abort
		} else {
			err = m.report(after, begin)
		}
		if errors.Is(err, domain.ErrTimeout) && domain.Lost(m.Watch) {
			domain.Forsake(m.Source)
			return err
		}
	}
}

func (m Move) report(ctx context.Context, begin time.Time) error {
	s, err := domain.JobStats(ctx, m.Watch, m.VM)
	if err != nil || s == nil || m.Report == nil {
		return err // it ended between two calls, or has not begun
	}
	m.Report(Progress{
		Total: int64(s.DataTotal), Done: int64(s.DataProcessed), Remaining: int64(s.DataRemaining),
		Rate: int64(s.MemBps), Dirty: int64(s.MemDirtyRate * s.MemPageSize),
		Elapsed: time.Since(begin),
	})
	return nil
}

// settle finds out where the machine is after libvirt reported failure; nil if it
// runs on the destination.
func (m Move) settle(ctx context.Context, cause error) error {
	moved, err := Settle(context.WithoutCancel(ctx), m.Source, m.Dest, m.VM)
	switch {
	case errors.Is(err, ErrLost):
		return fmt.Errorf("%w: %w", err, cause)
	case err != nil:
		return fmt.Errorf("%w: %w", ErrUnknown, errors.Join(cause, err))
	case moved:
		return nil // it did, whatever went wrong then
	case ctx.Err() != nil && errors.Is(cause, libvirt.ERR_OPERATION_ABORTED):
		return ctx.Err()
	}
	return &domain.Error{Op: "move to", Object: m.DestURI, Err: cause}
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
