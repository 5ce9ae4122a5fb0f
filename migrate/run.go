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

// Phase is what a migration is at.
type Phase string

// The phases. The guest runs on the source in the first two, on neither host in
// Handover, and on the destination in the last.
const (
	Setup    Phase = "setup"     // the destination prepares
	Copy     Phase = "copy"      // memory is copied while the guest writes it
	Handover Phase = "handover"  // the guest stands still
	Postcopy Phase = "post-copy" // it runs there and fetches what is missing
)

// Progress is how far a migration is. Sizes are in bytes.
type Progress struct {
	Phase     Phase
	Total     int64 // memory to move; grows as the guest dirties it
	Done      int64
	Rate      int64 // bytes a second
	Dirty     int64 // bytes a second that the guest writes anew
	Remaining int64
	Elapsed   time.Duration
	Left      time.Duration // until the end, as far as can be said; 0 is not known
}

// Result is what a migration took.
type Result struct {
	Elapsed     time.Duration
	Downtime    time.Duration // how long the guest stood still
	Transferred int64         // bytes sent
	Rate        int64         // bytes a second, on average
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
	Policy  Policy
	// Patience is how long nothing may move, or an abort may take; 0 is
	// [LeastPatience].
	Patience time.Duration
}

// Run moves the machine and blocks until it runs on the destination. If ctx
// ends, the migration is aborted and Run returns ctx's error when the source is
// known to run; should the move have been complete by then, it is a success. On
// any error the machine runs on the source, unless the error is [ErrLost] or
// [ErrUnknown]. A migration in which nothing has moved for Patience is aborted, which
// is [ErrStalled]. If that does not end it for as long again, or the source does not
// answer, it is left to itself: that is ErrUnknown and [domain.ErrTimeout], and the
// source's connections are [domain.Lost].
//
// Similar to: virsh migrate --live --p2p --persistent --undefinesource.
func Run(ctx context.Context, m Move) (Result, error) {
	params, err := m.params(ctx)
	if err != nil {
		return Result{}, err
	}
	begin := time.Now()
	done := make(chan error, 1)
	go func() { done <- m.migrate(params) }()
	if err := m.watch(ctx, done, begin); err != nil {
		if domain.Lost(m.Source) {
			return Result{}, fmt.Errorf("%w: %w", ErrUnknown, err)
		}
		if err := m.settle(ctx, err); err != nil {
			return Result{}, err
		}
	}
	r := Result{Elapsed: time.Since(begin)}
	m.account(context.WithoutCancel(ctx), &r)
	return r, nil
}

// migrate blocks until libvirt says that the migration is over. It is not bounded as
// other calls are, but watched.
func (m Move) migrate(params *libvirt.DomainMigrateParameters) error {
	d, err := m.Source.LookupDomainByName(m.VM)
	if err != nil {
		return fmt.Errorf("find VM %s: %w", m.VM, err)
	}
	defer d.Free()
	return d.MigrateToURI3(m.DestURI, params, flags)
}

// params carries the rewritten XML, of now and of the next start, if there is
// anything to rewrite.
func (m Move) params(ctx context.Context) (*libvirt.DomainMigrateParameters, error) {
	p := &libvirt.DomainMigrateParameters{}
	if m.Rewrite == nil {
		return p, nil
	}
	live, kept, err := domain.MigratableXML(ctx, m.Source, m.VM)
	if err != nil {
		return nil, err
	}
	if p.DestXML, p.DestXMLSet, err = m.Rewrite(live); err != nil {
		return nil, err
	}
	p.PersistXML, p.PersistXMLSet, err = m.Rewrite(kept)
	return p, err
}

// watch reports progress until the migration is over, and asks libvirt to abort
// it when ctx ends or nothing moves: again and again, because a job that has not begun
// yet cannot be aborted, but not for ever. If the source does not answer there is no
// use in that: libvirt asks a QEMU one thing at a time.
func (m Move) watch(ctx context.Context, done <-chan error, begin time.Time) error {
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	after := context.WithoutCancel(ctx)
	moves := newPulse(m.Patience)
	var aborted time.Time
	stalled := false
	for {
		select {
		case err := <-done:
			if stalled && err != nil {
				err = moves.stalled(err)
			}
			return err
		case <-tick.C:
		}
		if aborted.IsZero() && ctx.Err() != nil {
			aborted = time.Now()
		}
		var err error
		if aborted.IsZero() {
			var s *libvirt.DomainJobInfo
			s, err = domain.JobStats(after, m.Watch, m.VM) // an error if it ended between two calls
			m.report(s, begin)
			if moves.stopped(s) {
				stalled, aborted = true, time.Now()
			}
		} else {
			err = domain.AbortJob(after, m.Watch, m.VM) // fails as long as there is nothing to abort
		}
		switch {
		case domain.Lost(m.Watch):
		case !aborted.IsZero() && time.Since(aborted) > moves.patience:
			err = hangs("migration of "+m.VM, moves.patience)
		default:
			continue
		}
		domain.Forsake(m.Source)
		return err
	}
}

func (m Move) report(s *libvirt.DomainJobInfo, begin time.Time) {
	if s == nil || m.Report == nil {
		return
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
	moved, err := Settle(context.WithoutCancel(ctx), m.Source, m.Dest, m.VM, m.Patience)
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
func (m Move) account(ctx context.Context, r *Result) {
	s, err := domain.LastJobStats(ctx, m.Dest, m.VM)
	if err != nil {
		return
	}
	r.Downtime = time.Duration(s.Downtime) * time.Millisecond
	r.Transferred = int64(s.DataProcessed)
	r.Rate = int64(s.MemBps)
}
