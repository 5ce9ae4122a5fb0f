// The preflight of a migration: its steps before anything moves, and by itself.

package vmdisk

import (
	"cmp"
	"context"
	"errors"
	"fmt"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/domain"
	"github.com/vmdisk/vmdisk/migrate"
)

// preflight is what its steps share.
type preflight struct {
	here, there domain.Node
	given       migrate.Check // what the destination's secret came to
	report      migrate.Report
}

// MigrationCheck is what can be known of a migration before it.
type MigrationCheck struct {
	Checks []migrate.Check
	// Forecast is nil if it was not asked for, or not possible.
	Forecast *migrate.Forecast
}

// CheckMigration asks what [Host.Migrate] would ask and moves nothing. A secret
// that it had to set on the destination for that is removed again, and nothing else
// is changed, unless o.Fix says so: what that made stays. The checks are valid also if
// the error is a [*migrate.CheckError]; they are all answered, whatever the first says.
func (h *Host) CheckMigration(ctx context.Context, vm, dest string, o MigrateOptions) (MigrationCheck, error) {
	const op = "migrate"
	m := &move{h: h, o: o}
	defer m.close()
	// That it does not run is an answer as others are.
	if err := m.prepare(ctx, vm, dest); err != nil && !errors.Is(err, domain.ErrNotRunning) {
		return MigrationCheck{}, failed(op, vm, err)
	}
	give := m.giveSecret()
	if o.Fix { // it changes the machine, perhaps
		t := h.onMachine(&m.session, op, m.vm)
		t.steps = steps(give, step{name: "check", detail: m.verdict, do: m.check})
		err := h.perform(ctx, t)
		return m.known(ctx, err)
	}
	if err := give.do(ctx); err != nil {
		return MigrationCheck{}, failed(op, vm, err)
	}
	err := failed(op, vm, m.check(ctx))
	for _, a := range give.back {
		if undo := h.act(context.WithoutCancel(ctx), &m.session, a); err == nil {
			err = undo
		}
	}
	return m.known(ctx, err)
}

// known is what a check came to, and the forecast that was made beside it.
func (m *move) known(ctx context.Context, err error) (MigrationCheck, error) {
	if m.sight != nil && m.vm.Running && ctx.Err() == nil {
		err = cmp.Or(err, failed("migrate", m.vm.Name, m.forecast(ctx)))
	}
	return MigrationCheck{Checks: m.report.Checks, Forecast: m.result.Forecast}, err
}

// giveSecret sets the destination's secret. It stays if the machine may be there.
// That it cannot be set is an answer of the preflight, if there is to be one.
func (m *move) giveSecret() step {
	s := m.h.secretStep(m.dest(), m.uri, &m.secret)
	if m.o.Fix {
		s.back = nil
	}
	if m.o.NoCheck {
		return s
	}
	set, detail := s.do, s.detail
	s.detail = func() string {
		if m.given.Err != nil {
			return m.secret.Usage + " refused"
		}
		return detail()
	}
	s.do = func(ctx context.Context) error {
		err := set(ctx)
		m.given = migrate.Check{Name: "secret", OK: err == nil, Err: err, Detail: detail()}
		if err == nil || timedOut(err) || ctx.Err() != nil {
			return err
		}
		m.given.Detail = err.Error()
		m.given.Cure = fmt.Sprintf("on %s:  virsh secret-undefine %s, if no other cluster's machines need it", m.there.Hostname, m.secret.UUID)
		return nil
	}
	return s
}

// checkStep asks before a migration, and tells what it has to warn of.
func (m *move) checkStep() step {
	return step{name: "check", detail: m.verdict, do: func(ctx context.Context) error {
		err := m.check(ctx)
		for _, c := range m.report.Checks {
			if c.Warning {
				m.h.emit(Event{Kind: Warning, Op: "migrate", Object: m.vm.Name, Detail: c.Detail})
			}
		}
		return err
	}}
}

func (m *move) check(ctx context.Context) error {
	rewrite, err := m.rewrite(ctx)
	if err != nil {
		return err
	}
	p := migrate.Plan{
		VM: m.vm.UUID, Source: m.conn, Dest: m.to, DestURI: m.uri, From: m.here, To: m.there,
		Offline: m.o.Offline, TLS: m.o.TLS, Fix: m.o.Fix, Secret: &m.given, Rewrite: rewrite,
		Clients: m.clients, FSID: m.cluster.FSID(), Timeout: m.h.cfg.Timeout,
	}
	if conf := m.cluster.Conf(); conf != disk.DefaultConf {
		p.Conf = conf
	}
	m.report, err = migrate.Preflight(ctx, p)
	for _, done := range m.report.Fixed {
		m.h.emit(Event{Kind: Note, Op: "migrate", Object: m.vm.Name, Step: "fix", Detail: done})
	}
	return err
}

// rewrite changes the machine's XML for the destination, with the monitors of now.
func (m *move) rewrite(ctx context.Context) (func(string) (string, bool, error), error) {
	monitors, err := m.cluster.Monitors(ctx)
	return func(xml string) (string, bool, error) {
		return domain.Rewrite(xml, monitors, m.cluster.Conf(), m.secret.UUID)
	}, err
}

// clients lists who has an image open.
func (m *move) clients(ctx context.Context, image string) ([]string, error) {
	n, err := disk.ParseName(image, "")
	if err != nil {
		return nil, err
	}
	all, err := m.cluster.Watchers(ctx, n)
	var clients []string
	for _, w := range all {
		clients = append(clients, w.Client)
	}
	return clients, err
}

// verdict counts the answers: a warning is no obstacle.
func (m *move) verdict() string {
	if len(m.report.Checks) == 0 {
		return m.result.To
	}
	fit, warnings := 0, 0
	for _, c := range m.report.Checks {
		switch {
		case c.Warning:
			warnings++
			fallthrough
		case c.OK:
			fit++
		}
	}
	s := fmt.Sprintf("%s: %d of %d fit", m.result.To, fit, len(m.report.Checks))
	switch warnings {
	case 0:
		return s
	case 1:
		return s + ", 1 warning"
	}
	return fmt.Sprintf("%s, %d warnings", s, warnings)
}
