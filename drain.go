// Drain: all of a host's machines to others.

package vmdisk

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/domain"
	"github.com/vmdisk/vmdisk/migrate"
	"golang.org/x/sync/errgroup"
)

// drainWorkers is how many machines are moved at once, unless one says otherwise:
// while one is handed over, the link is another's.
const drainWorkers = 2

// DrainOptions say where a host's machines go, and how.
type DrainOptions struct {
	// To are the destinations: libvirt URIs, or host names that get the scheme and
	// path of [Config.URI].
	To []string
	// Workers is how many are moved at once; 0 is 2.
	Workers int
	// DryRun only says what would go where, and in which order.
	DryRun bool
	// Migrate says how each is moved. A machine that is shut off is moved as one.
	Migrate MigrateOptions
}

// Drained is a machine of a host that was drained.
type Drained struct {
	VM     string
	UUID   string
	State  string // as it was: "running", "shut off"
	Memory int64  // bytes
	// To is the host's name where it is now, or, in a dry run, would be; "" if it
	// stays.
	To string
	// Forecast is what is expected of its migration; nil if the machine is off, or
	// nothing was measured.
	Forecast  *migrate.Forecast
	Migration Migration // zero unless it moved
	Err       error     // why it stays

	emulated bool
}

// Moved says whether the machine is on another host now.
func (d Drained) Moved() bool { return d.Migration.To != "" }

func (d Drained) off() bool     { return d.State == "shut off" }
func (d Drained) running() bool { return d.State == "running" }

// DrainError is a drain that left machines where they were. It matches whatever the
// reasons match.
type DrainError struct {
	Host string
	Of   int     // how many machines there were
	Errs []error // one for each that stays
}

// Error says how many stay, and not why: that is in Errs.
func (e *DrainError) Error() string {
	return fmt.Sprintf("%d of %d machines stay on %s", len(e.Errs), e.Of, e.Host)
}

// Unwrap makes the reasons match.
func (e *DrainError) Unwrap() []error { return e.Errs }

// Drain moves all machines of the host to others, those that are off, too. First go
// those that take the least time, and last those of which the forecast says that they
// write faster than they can be copied, see [migrate.Forecast]: what can be moved is
// away when those take their time. Each goes to the destination with the most memory
// left that fits; one that a destination is not fit for is offered to the next.
//
// One that cannot be moved does not keep the others: the error is a [*DrainError] then,
// and the list, in the order of the moves, says for each what came of it. If ctx ends,
// moves under way are aborted and the rest stays; a drain that was interrupted, also by
// a kill, is gone on with by the next one.
//
// Similar to: kubectl drain; nova host-evacuate-live.
func (h *Host) Drain(ctx context.Context, o DrainOptions) ([]Drained, error) {
	const op = "drain"
	d := &drain{h: h, o: o}
	defer d.end()
	if err := d.prepare(ctx); err != nil {
		return nil, failed(op, cmp.Or(d.host, h.cfg.URI), err)
	}
	if !o.DryRun {
		d.run(ctx)
	} else {
		for i := range d.all {
			d.plan(&d.all[i])
		}
	}
	return d.all, d.verdict()
}

// drain is one that is under way.
type drain struct {
	session
	h     *Host
	o     DrainOptions
	depot depot
	all   []Drained

	mu    sync.Mutex
	done  int64 // bytes of memory of the machines that are dealt with
	total int64
}

// prepare connects to the destinations and puts the machines in their order.
func (d *drain) prepare(ctx context.Context) (err error) {
	if len(d.o.To) == 0 {
		return badInput("no destination is given")
	}
	if err := d.open(ctx, d.h); err != nil {
		return err
	}
	if err := d.depot.open(ctx, d.h, d.host, d.o.To); err != nil {
		return err
	}
	infos, err := domain.List(ctx, d.conn)
	if err != nil {
		return err
	}
	for _, info := range infos {
		memory, err := domain.GuestMemory(ctx, d.conn, info.UUID)
		if errors.Is(err, domain.ErrNotFound) {
			continue
		}
		if err != nil {
			return err
		}
		d.total += memory
		d.all = append(d.all, Drained{VM: info.Name, UUID: info.UUID, State: info.State, Memory: memory, emulated: info.Emulated})
	}
	if err := d.forecast(ctx); err != nil {
		return err
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	slices.SortStableFunc(d.all, sooner)
	return nil
}

// sooner orders machines by how surely and how soon they are moved.
func sooner(a, b Drained) int {
	rank := func(d Drained) (int, time.Duration) {
		switch {
		case d.off():
			return 0, 0
		case d.Forecast == nil:
			return 2, 0
		case d.Forecast.Converges:
			return 1, d.Forecast.Elapsed
		}
		return 3, 0
	}
	rankA, timeA := rank(a)
	rankB, timeB := rank(b)
	return cmp.Or(cmp.Compare(rankA, rankB), cmp.Compare(timeA, timeB))
}

// forecast measures all machines that run, at the same time: each is watched for a
// second. One that cannot be measured is moved all the same.
func (d *drain) forecast(ctx context.Context) error {
	if d.o.Migrate.NoForecast || !slices.ContainsFunc(d.all, Drained.running) {
		return nil
	}
	seen, err := d.h.linkSeen(ctx, d.cluster, d.host, d.depot.hosts[0].host)
	if err != nil {
		return err
	}
	var group errgroup.Group
	group.SetLimit(measuredAtOnce)
	for i := range d.all {
		if m := &d.all[i]; m.running() {
			group.Go(func() error {
				load, err := d.measure(ctx, m.UUID)
				if err == nil {
					f := migrate.Estimate(load, seen, d.o.Migrate.For(m.emulated))
					m.Forecast = &f
				}
				return ctx.Err()
			})
		}
	}
	return group.Wait()
}

// measuredAtOnce bounds how many connections to libvirt there are for it.
const measuredAtOnce = 16

// measure watches one machine, on a connection of its own.
func (d *drain) measure(ctx context.Context, vm string) (domain.Load, error) {
	conn, err := domain.Another(ctx, d.conn, d.h.patience())
	if err != nil {
		return domain.Load{}, err
	}
	defer func() { _, _ = domain.Close(context.WithoutCancel(ctx), conn) }()
	return domain.MeasureLoad(ctx, conn, vm)
}

// run moves the machines, so many at once, in their order.
func (d *drain) run(ctx context.Context) {
	show := d.h.progress("drain", d.host, "drain")
	d.h.emit(Event{Kind: Started, Op: "drain", Object: d.host, Step: "drain"})
	var group errgroup.Group
	group.SetLimit(cmp.Or(d.o.Workers, drainWorkers))
	for i := range d.all {
		if ctx.Err() != nil {
			d.all[i].Err = failed("migrate", d.all[i].VM, ctx.Err())
			continue
		}
		group.Go(func() error {
			d.move(ctx, &d.all[i])
			d.mu.Lock()
			defer d.mu.Unlock()
			d.done += d.all[i].Memory
			show(d.done, d.total)
			return nil
		})
	}
	_ = group.Wait()
}

// move moves one machine, to the first destination that is fit for it.
func (d *drain) move(ctx context.Context, m *Drained) {
	event := Event{Kind: Started, Op: "drain", Object: m.VM, Step: "move", Detail: m.VM}
	begin := time.Now()
	d.h.emit(event)
	var refused []string
	var all []error
	for {
		to, err := d.depot.take(m.Memory, m.off(), refused)
		if err != nil {
			if len(all) == 0 {
				all = append(all, failed("migrate", m.VM, err))
			}
			m.Err = errors.Join(all...)
			break
		}
		m.Migration, err = d.h.Migrate(ctx, m.UUID, to.uri, d.how(m))
		if err == nil || m.Moved() {
			m.To, m.Err = m.Migration.To, err
			break
		}
		d.depot.giveBack(to, m.Memory)
		all = append(all, err)
		var unfit *migrate.CheckError
		if !errors.As(err, &unfit) {
			m.Err = err
			break
		}
		refused = append(refused, to.host)
	}
	event.Elapsed = time.Since(begin)
	if event.Kind = Done; m.Err != nil {
		event.Kind, event.Err = Failed, m.Err
	}
	event.Detail = m.outcome()
	d.h.emit(event)
}

// how is how one machine is moved.
func (d *drain) how(m *Drained) MigrateOptions {
	o := d.o.Migrate
	o.Offline = m.off()
	return o
}

// outcome is what came of one machine, for people.
func (d Drained) outcome() string {
	switch r := d.Migration; {
	case !d.Moved():
		return d.VM + " stays"
	case d.off():
		return d.VM + " to " + r.To + ", shut off"
	default:
		return fmt.Sprintf("%s to %s, downtime %d ms, %s sent", d.VM, r.To, r.Downtime.Milliseconds(), disk.FormatSize(r.Transferred))
	}
}

// plan says where one machine would go.
func (d *drain) plan(m *Drained) {
	to, err := d.depot.take(m.Memory, m.off(), nil)
	if err != nil {
		m.Err = failed("migrate", m.VM, err)
		return
	}
	m.To = to.host
}

func (d *drain) verdict() error {
	e := &DrainError{Host: d.host, Of: len(d.all)}
	for _, m := range d.all {
		if m.Err != nil {
			e.Errs = append(e.Errs, m.Err)
		}
	}
	if len(e.Errs) == 0 {
		return nil
	}
	return e
}
