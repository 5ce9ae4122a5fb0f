// The preflight of a migration: its steps before anything moves, and by itself.

package vmdisk

import (
	"context"
	"fmt"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/domain"
	"github.com/vmdisk/vmdisk/migrate"
)

// CheckMigration asks what [Host.Migrate] would ask and moves nothing. A secret
// that it had to set on the destination for that is removed again. The checks
// are valid also if the error is a [*migrate.CheckError].
func (h *Host) CheckMigration(ctx context.Context, vm, dest string) ([]migrate.Check, error) {
	m := &move{h: h}
	defer m.close()
	if err := m.prepare(ctx, vm, dest); err != nil {
		return nil, failed("migrate", vm, err)
	}
	give := m.giveSecret()
	if err := give.do(ctx); err != nil {
		return nil, failed("migrate", vm, err)
	}
	err := failed("migrate", vm, m.check(ctx))
	for _, a := range give.back {
		if undo := h.act(context.WithoutCancel(ctx), &m.session, a); err == nil {
			err = undo
		}
	}
	return m.report.Checks, err
}

// giveSecret sets the destination's secret. It stays if the machine may be there.
func (m *move) giveSecret() step {
	return m.h.secretStep(m.dest(), m.uri, &m.secret)
}

func (m *move) check(ctx context.Context) error {
	probe, err := m.probe(ctx)
	if err != nil {
		return err
	}
	m.report, err = migrate.Preflight(ctx, migrate.Plan{
		VM: m.vm.UUID, Source: m.conn, Dest: m.to, Probe: probe, Timeout: m.h.cfg.Timeout,
	})
	return err
}

// probe is a disk for the destination to open: the snapshot that the machine's
// first disk was cloned from, which is never written to; or the disk itself,
// which a paused QEMU does not write to either.
func (m *move) probe(ctx context.Context) (*domain.Disk, error) {
	for _, has := range m.vm.Disks {
		if has.Pool == "" {
			continue
		}
		n := disk.Name{Pool: has.Pool, Image: has.Image}
		from, err := m.cluster.Parent(ctx, n)
		if err != nil {
			return nil, err
		}
		if from.Image != "" {
			n = from
		}
		d, err := m.h.rbdDisk(ctx, m.cluster, n, m.secret.UUID)
		d.Snapshot = n.Snap
		return &d, err
	}
	return nil, nil
}

func (m *move) verdict() string {
	if len(m.report.Checks) == 0 {
		return m.result.To
	}
	fit := 0
	for _, c := range m.report.Checks {
		if c.OK {
			fit++
		}
	}
	return fmt.Sprintf("%s: %d of %d fit", m.result.To, fit, len(m.report.Checks))
}
