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
	Report  func(Progress)    // or nil
	Notice  func(text string) // told what is done about a stall; or nil
	Policy  Policy
	// Patience is how long nothing may move, or an abort may take; 0 is
	// [LeastPatience].
	Patience time.Duration
}

// Run moves the machine and blocks until it runs on the destination. If ctx
// ends, the migration is aborted and Run returns ctx's error when the source is
// known to run; should the move have been complete by then, it is a success. In
// post-copy it cannot be aborted: Run waits on, which is told as a Notice. On
// any error the machine runs on the source, unless the error is [ErrLost],
// [ErrUnknown], or [ErrInterrupted], after which [Recover] goes on.
//
// A migration in which nothing has moved for Patience is aborted, which is [ErrStalled],
// or in post-copy interrupted; one that gets no nearer to its end ends as the Policy
// says, at the last as a [*StallError]. If aborting does not end it for Patience, or the source does not
// answer, it is left to itself: that is ErrUnknown and [domain.ErrTimeout], and the
// source's connections are [domain.Lost].
//
// Similar to: virsh migrate --live --p2p --persistent --undefinesource.
func Run(ctx context.Context, m Move) (Result, error) {
	if err := m.Policy.Check(); err != nil {
		return Result{}, err
	}
	params, err := m.params(ctx)
	if err != nil {
		return Result{}, err
	}
	was, err := domain.MaxDowntime(ctx, m.Source, m.VM)
	if err != nil {
		return Result{}, err
	}
	down := m.Policy.downtime()
	if err := domain.SetMaxDowntime(ctx, m.Source, m.VM, down.now()); err != nil {
		return Result{}, err
	}
	r, err := m.run(ctx, params, flags|m.Policy.flags(), down)
	if err != nil && !domain.Lost(m.Source) && !errors.Is(err, ErrInterrupted) { // for the next, whoever begins it
		_ = domain.SetMaxDowntime(context.WithoutCancel(ctx), m.Source, m.VM, was)
	}
	return r, err
}

// Recover goes on with a migration that was interrupted in post-copy. Of the policy it
// takes TLS, which must be what it was before.
//
// Similar to: virsh migrate --postcopy-resume.
func Recover(ctx context.Context, m Move) (Result, error) {
	m.Policy = Policy{TLS: m.Policy.TLS, Postcopy: true}
	for begin := time.Now(); ; {
		r, err := m.run(ctx, &libvirt.DomainMigrateParameters{}, flags|m.Policy.flags()|libvirt.MIGRATE_POSTCOPY_RESUME, m.Policy.downtime())
		// One of the QEMUs may learn later than the other that there is something to resume:
		// it refuses to, or takes the interruption of before for one of now.
		early := errors.Is(err, libvirt.ERR_OPERATION_INVALID) || errors.Is(err, libvirt.ERR_OPERATION_FAILED)
		if !errors.Is(err, ErrInterrupted) || !early || time.Since(begin) > settleTimeout {
			return r, err
		}
		select {
		case <-ctx.Done():
			return r, errors.Join(ctx.Err(), err)
		case <-time.After(watchEvery):
		}
	}
}

func (m Move) run(ctx context.Context, params *libvirt.DomainMigrateParameters, flags libvirt.DomainMigrateFlags, down *downtime) (Result, error) {
	w := &watch{Move: m, begin: time.Now(), moves: newPulse(m.Patience), nears: newNearing(), down: down}
	done := make(chan error, 1)
	go func() { done <- m.migrate(params, flags) }()
	err := w.until(ctx, done)
	r := Result{Elapsed: time.Since(w.begin)}
	if err != nil {
		if errors.Is(err, ErrInterrupted) {
			return Result{}, err
		}
		if domain.Lost(m.Source) {
			return Result{}, fmt.Errorf("%w: %w", ErrUnknown, err)
		}
		if err := m.settle(ctx, err); err != nil {
			return Result{}, err
		}
	}
	if w.paused { // libvirt lets it go on; this is to be sure
		if err := domain.Resume(context.WithoutCancel(ctx), m.Dest, m.VM); err != nil {
			return r, fmt.Errorf("%w: %w", ErrUnknown, err)
		}
	}
	m.account(context.WithoutCancel(ctx), &r)
	return r, nil
}

// migrate blocks until libvirt says that the migration is over. It is not bounded as
// other calls are, but watched.
func (m Move) migrate(params *libvirt.DomainMigrateParameters, flags libvirt.DomainMigrateFlags) error {
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
	m.Policy.set(p)
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

// settle finds out where the machine is after libvirt reported failure; nil if it
// runs on the destination.
func (m Move) settle(ctx context.Context, cause error) error {
	moved, err := Settle(context.WithoutCancel(ctx), m.Source, m.Dest, m.VM, m.Patience)
	switch {
	case errors.Is(err, ErrLost), errors.Is(err, ErrInterrupted):
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
