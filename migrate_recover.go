// Recover: a migration that was interrupted in post-copy, where the guest runs on the
// destination and part of its memory is still on the source.

package vmdisk

import (
	"context"
	"errors"
	"slices"

	"github.com/vmdisk/vmdisk/domain"
	"github.com/vmdisk/vmdisk/migrate"
	"libvirt.org/go/libvirt"
)

// RecoverMigration goes on with a migration of a machine that was interrupted in
// post-copy, and blocks until all of its memory has come. It is asked of the source. The
// journal knows the destination; dest is for a migration that was not vmdisk's, and may
// be "" else. One that can go on by itself, after its client died, is waited for. If
// nothing was interrupted that is [domain.ErrInvalid]; a memory that is lost is
// [migrate.ErrLost]; and what is interrupted again [migrate.ErrInterrupted].
//
// Similar to: virsh migrate --postcopy-resume.
func (h *Host) RecoverMigration(ctx context.Context, vm, dest string) (Migration, error) {
	const op = "migrate"
	r, err := h.Repair(ctx, RepairOptions{VM: vm})
	if err != nil {
		var e *Error
		if errors.As(err, &e) { // it has more to say than that not all could be repaired
			for _, o := range r.Operations {
				if o.Error != "" && o.Next != "" {
					e.Next = o.Next
				}
			}
		}
		return Migration{}, err
	}
	m := &move{h: h}
	defer m.close()
	if slices.ContainsFunc(r.Operations, func(o Operation) bool { return o.Kind == op && o.Done }) {
		return m.whereNow(ctx, vm, r)
	}
	if m.vm, err = m.session.find(ctx, h, vm); err != nil {
		return Migration{}, failed(op, vm, err)
	}
	c, err := domain.Inspect(ctx, m.conn, m.vm.UUID)
	switch {
	case err != nil:
	case !c.Broken:
		err = &domain.Error{Object: "VM " + m.vm.Name, Kind: domain.ErrInvalid, Reason: "is " + c.State + ", and no migration of it was interrupted in post-copy"}
	case dest == "":
		err = &domain.Error{Object: "VM " + m.vm.Name, Kind: domain.ErrInvalid, Reason: "the journal does not say to where it was on its way: name the destination"}
	default:
		err = m.prepare(ctx, vm, dest)
	}
	if err != nil {
		return Migration{}, failed(op, vm, err)
	}
	t := h.onMachine(&m.session, op, m.vm)
	settle := []action{m.settle(false)}
	t.steps = steps(
		step{name: "recover", detail: says(m.result.To), commit: true, on: settle, do: func(ctx context.Context) error {
			return h.resumePostcopy(ctx, m.conn, m.to, settle[0])
		}},
		step{name: "record", detail: says(m.vm.Name), on: settle, do: func(ctx context.Context) error {
			return h.moved(ctx, m.dest(), m.vm.UUID)
		}})
	return m.result, h.perform(ctx, t)
}

// whereNow is where a machine is whose migration a repair has brought to its end.
func (m *move) whereNow(ctx context.Context, vm string, r Repair) (Migration, error) {
	var err error
	if m.cluster, err = m.h.Cluster(ctx); err != nil {
		return Migration{}, failed("migrate", vm, err)
	}
	all, err := m.cluster.Machines(ctx, m.h.cfg.VMPool)
	for _, one := range all {
		if slices.ContainsFunc(r.Operations, func(o Operation) bool { return touches(&o.Operation, one.UUID) }) {
			return Migration{VM: one.Name, To: one.Host}, nil
		}
	}
	return Migration{VM: vm}, failed("migrate", vm, err)
}

// resumePostcopy fetches what is missing of a machine's memory.
func (h *Host) resumePostcopy(ctx context.Context, source, dest *libvirt.Connect, a action) error {
	watch, err := domain.Another(ctx, source, h.patience())
	if err != nil {
		return err
	}
	defer func() {
		if !domain.Lost(watch) {
			_, _ = domain.Close(context.WithoutCancel(ctx), watch)
		}
	}()
	h.emit(Event{Kind: Note, Op: "migrate", Object: a.Name, Step: "recover", Detail: "what is missing of " + a.Name + "'s memory on " + a.To})
	_, err = migrate.Recover(ctx, migrate.Move{
		VM: a.Name, Source: source, Watch: watch, Dest: dest, DestURI: a.ToURI,
		Patience: h.patience(), Policy: migrate.Policy{TLS: a.TLS},
	})
	return failed("migrate", a.Name, err)
}
