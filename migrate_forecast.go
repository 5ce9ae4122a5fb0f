// The forecast of a migration: measured beside the preflight, and compared with what it
// came to.

package vmdisk

import (
	"context"
	"time"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/domain"
	"github.com/vmdisk/vmdisk/migrate"
	"libvirt.org/go/libvirt"
)

// sighting is a measurement of the guest that goes on beside other work, on the
// connection that a migration is watched by.
type sighting struct {
	load domain.Load
	err  error
	done chan struct{}
	stop context.CancelFunc
}

// look begins to measure the guest.
func (m *move) look(ctx context.Context, vm string) *sighting {
	ctx, cancel := context.WithCancel(ctx)
	s := &sighting{done: make(chan struct{}), stop: cancel}
	go func() {
		defer close(s.done)
		s.load, s.err = domain.MeasureLoad(ctx, m.watch, vm)
	}()
	return s
}

// end waits until it does not use the connection any more, but not for a libvirt that
// does not answer: the connection is left to it then.
func (s *sighting) end(conn *libvirt.Connect) {
	if s == nil {
		return
	}
	s.stop()
	select {
	case <-s.done:
	case <-time.After(sightingEnds):
		domain.Forsake(conn)
	}
}

// sightingEnds is how long that may take. Stopped, no call is begun any more.
const sightingEnds = time.Second

// forecast waits for the measurement. What cannot be measured is no reason not to move.
func (m *move) forecast(ctx context.Context) error {
	select {
	case <-m.sight.done:
	case <-ctx.Done():
		return ctx.Err()
	}
	link, err := m.h.linkSeen(ctx, m.cluster, m.result.From, m.result.To)
	if m.sight.err != nil {
		err = m.sight.err
	}
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case domain.Lost(m.watch): // and a migration could not be watched
		return err
	case err != nil:
		m.h.emit(Event{Kind: Note, Op: "migrate", Object: m.vm.Name, Step: "forecast", Detail: "none: " + domain.Message(err)})
		return nil
	}
	f := migrate.Estimate(m.sight.load, link, m.o.Policy)
	m.result.Forecast = &f
	if advice := f.Advice(); advice != "" {
		m.h.emit(Event{Kind: Note, Op: "migrate", Object: m.vm.Name, Step: "forecast", Detail: advice})
	}
	return nil
}

// linkSeen is what an earlier migration between the hosts has left.
func (h *Host) linkSeen(ctx context.Context, c *disk.Cluster, from, to string) (migrate.Link, error) {
	seen, err := c.Link(ctx, h.cfg.VMPool, from, to)
	if err != nil {
		return migrate.Link{}, gone(err)
	}
	return migrate.Link{Rate: seen.Rate, Overhead: seen.Overhead, Basis: migrate.Seen}, nil
}

// remember writes down what this migration has shown of the way between the hosts. A
// rate at the limit asked for shows nothing of it.
func (m *move) remember(ctx context.Context) error {
	r := m.result.Result
	if r.Rate == 0 || m.o.Bandwidth > 0 && 10*r.Rate > 9*m.o.Bandwidth {
		return nil
	}
	sending := time.Duration(float64(r.Transferred) / float64(r.Rate) * float64(time.Second))
	return m.cluster.SaveLink(ctx, m.h.cfg.VMPool, m.result.From, m.result.To,
		disk.Link{Rate: r.Rate, Overhead: max(r.Elapsed-sending, 0), Seen: time.Now()})
}

// outlook is what the step says.
func (m *move) outlook() string {
	if f := m.result.Forecast; f != nil {
		return f.String()
	}
	return m.result.To
}

// again gives the forecast a second time, as soon as the copy itself has shown what the
// hosts can send, if that was only assumed.
func (m *move) again() func(migrate.Progress) {
	f := m.result.Forecast
	if f == nil || f.Basis != migrate.Assumed {
		return func(migrate.Progress) {}
	}
	var first migrate.Progress
	return func(p migrate.Progress) {
		switch {
		case f == nil || p.Done == 0:
		case first.Done == 0:
			first = p
		case p.Elapsed-first.Elapsed >= surely:
			link := migrate.Link{Basis: migrate.Measured, Overhead: p.Elapsed,
				Rate: int64(float64(p.Done-first.Done) / (p.Elapsed - first.Elapsed).Seconds())}
			load := m.sight.load
			load.Memory, load.Dirty = p.Remaining, max(load.Dirty, p.Dirty)
			m.h.emit(Event{Kind: Note, Op: "migrate", Object: m.vm.Name, Step: "forecast",
				Detail: migrate.Estimate(load, link, m.o.Policy).String()})
			f = nil
		}
	}
}

// surely is how long a copy is watched before its rate is believed.
const surely = time.Second
