// The steps that move one disk to another pool.

package vmdisk

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/domain"
)

// move moves the disk: that or nothing happens, but for the old image, which goes at
// the end.
func (m *moving) move(ctx context.Context) (err error) {
	begin := time.Now()
	defer m.letGo()
	t := m.h.onMachine(&m.session, "move", m.vm, m.old().String())
	if m.in == nil {
		t.leases = append(t.leases, m.made().String())
	}
	t.check = m.again
	t.steps = func() []step {
		var all []step
		if m.in != nil {
			all = append(all, step{name: "hold", detail: says(m.VM + " in " + m.in.Conf), do: m.hold,
				back: []action{{Verb: actFollow, VM: m.UUID, Name: m.VM, Host: m.host, In: m.in}, m.let()}})
		}
		keep := m.into.secretStep(m.there, "", &m.secret)
		for i := range keep.back {
			keep.back[i].In = m.in
		}
		all = append(all, keep,
			step{name: "create", detail: says(m.made().String() + ", " + disk.FormatSize(m.Size)), do: m.create,
				back: []action{m.onMade(actRemove)}},
		)
		if m.owned {
			all = append(all, step{name: "claim", detail: m.made().String, do: m.claim,
				back: []action{m.onMade(actRelease)}})
		}
		if m.Running {
			all = append(all, m.crossing().steps()...)
		} else {
			all = append(all, m.offline()...)
		}
		all = append(all, step{name: "remove", detail: m.old().String, do: m.remove, on: []action{m.on(actSettleMove)}})
		if m.in != nil {
			follow := action{Verb: actFollow, VM: m.UUID, Name: m.VM, Host: m.host}
			there := follow
			there.In = m.in
			all = append(all, step{name: "record", detail: says(m.VM + " in " + m.in.Conf), on: []action{follow, there, m.let()},
				do: func(ctx context.Context) error { return m.h.act(ctx, &m.session, follow) }})
		}
		return all
	}
	err = m.h.perform(ctx, t)
	if m.held != nil {
		err = errors.Join(err, m.held.end(ctx))
	}
	m.Elapsed = time.Since(begin)
	return err
}

// hold keeps others from working on the machine with the other cluster. If this process
// dies, whoever does first has to bring the move to an end, which this cluster knows how to.
func (m *moving) hold(ctx context.Context) (err error) {
	near, err := m.h.here(m.cluster)
	if err != nil {
		return err
	}
	o, err := m.into.lease(ctx, m.into.onMachine(m.there, "move", m.vm, m.made().String()))
	if err != nil {
		return err
	}
	m.held, o.touched = o, true // its record follows
	o.plan.Steps = []planned{{Name: "hold", Back: []action{{Verb: actEnd, VM: m.UUID, Name: m.VM, In: &near}}}}
	o.plan.Begun = 1
	return o.write(ctx)
}

// let lets them again, if this process dies.
func (m *moving) let() action {
	return action{Verb: actEnd, VM: m.UUID, Name: m.VM, In: m.in}
}

// again looks again, now that nobody else changes the machine.
func (m *moving) again(ctx context.Context) error {
	if err := m.look(ctx); err != nil || m.Running {
		return err
	}
	var err error
	if m.client, err = m.cluster.Addr(); err != nil {
		return err
	}
	return m.cluster.WaitUnused(ctx, m.old())
}

// on is an action on the disk.
func (m *moving) on(v verb) action {
	return action{Verb: v, VM: m.UUID, Name: m.VM, Host: m.host, To: m.Target,
		Image: m.made().String(), Was: m.old().String(), In: m.in}
}

// onMade is an action on the copy alone.
func (m *moving) onMade(v verb) action {
	return action{Verb: v, Image: m.made().String(), VM: m.UUID, In: m.in}
}

// back defines the machine as it was.
func (m *moving) back() action {
	a := m.on(actPutInImage)
	a.Image, a.Was, a.In, a.Also = a.Was, "", nil, a.In
	return a
}

func (m *moving) create(ctx context.Context) error {
	if err := m.there.cluster.CreateDisk(ctx, m.made(), m.Size); err != nil {
		return err
	}
	err := m.cluster.CopySettings(ctx, m.old(), m.there.cluster, m.made())
	if err != nil {
		err = errors.Join(err, m.there.cluster.RemoveDisk(context.WithoutCancel(ctx), m.made()))
	}
	return err
}

// claim gives the copy of a volume to the machine that has the volume.
func (m *moving) claim(ctx context.Context) error {
	_, err := m.there.cluster.Claim(ctx, m.made(), disk.Owner{VM: m.VM, UUID: m.UUID, Host: m.host})
	return err
}

// crossing is the disk's way while the machine runs.
func (m *moving) crossing() *crossing {
	return &crossing{
		session: &m.session, h: m.h, op: "move", vm: m.vm, target: m.Target, from: m.old().String(), to: m.made().String(),
		bandwidth: m.o.Bandwidth, into: m.there.cluster, pool: m.To, data: m.Data, stood: &m.Stood,
		xml: func(ctx context.Context) (string, error) {
			with, err := m.into.rbdDisk(ctx, m.there.cluster, m.made(), m.secret.UUID)
			if err != nil {
				return "", err
			}
			with.Target = m.Target
			return with.XML()
		},
		there: m.on(actPutInImage), back: m.back(), settle: m.on(actSettleMove),
	}
}

// offline is the disk's way while the machine is off. Somebody could start it without
// vmdisk: what it would write is kept from the old image from before the copy until the
// definition has the new one.
func (m *moving) offline() []step {
	return []step{
		{name: "copy", detail: says(m.old().String()), do: m.copy, back: []action{m.holding()}},
		{name: "define", detail: says(m.Target + " in " + m.made().String()), do: m.define, commit: true,
			begun: func() bool { return m.defined }, on: []action{m.holding(), m.on(actSettleMove)}},
	}
}

// holding is this process's hold on the old image.
func (m *moving) holding() action {
	return action{Verb: actLetGo, Image: m.old().String(), Client: m.client}
}

func (m *moving) copy(ctx context.Context) (err error) {
	if m.release, err = m.cluster.Hold(ctx, m.old()); err != nil {
		return err
	}
	err = m.cluster.CopyDisk(ctx, m.old(), m.there.cluster, m.made(), m.o.Bandwidth, m.h.progress("move", m.VM, "copy"))
	if err != nil {
		m.letGo()
	}
	return err
}

// define changes the definition of a machine that is off, and makes sure that it was
// not started with the old one at the same time. After that nobody gets to the old image.
func (m *moving) define(ctx context.Context) error {
	defer m.letGo()
	if err := m.off(ctx); err != nil {
		return err
	}
	m.defined = true // or not, if that fails half-way
	err := m.h.act(ctx, &m.session, m.on(actPutInImage))
	if err == nil {
		err = m.off(ctx)
	}
	if err != nil {
		back := m.h.act(context.WithoutCancel(ctx), &m.session, m.back())
		m.defined = back != nil
		err = errors.Join(err, back)
	}
	return err
}

// off is an error if the machine runs with the old image.
func (m *moving) off(ctx context.Context) error {
	now, err := domain.Relocation(ctx, m.conn, m.UUID, m.Target)
	if err == nil && now.Running && !m.on(actSettleMove).arrived(now.Live) {
		err = &disk.Error{Object: "VM " + m.VM, Kind: disk.ErrInUse, Reason: "was started meanwhile, without vmdisk"}
	}
	return err
}

// letGo lets the old image be written again.
func (m *moving) letGo() {
	if m.release != nil {
		m.release()
		m.release = nil
	}
}

// letGo ends what a process that died holds of an image: its watch would last for 30 s.
// One that lives has let go by itself.
func (h *Host) letGo(ctx context.Context, on *session, n disk.Name, client string) error {
	use, err := on.cluster.Use(ctx, n)
	if err != nil || on.cluster.IsSelf(client) || !slices.Contains(use.Addrs(), client) {
		return gone(err)
	}
	if err := on.openHost(ctx, h); err != nil {
		return err
	}
	return h.expel(ctx, on, n, []string{client})
}

func (m *moving) remove(ctx context.Context) error {
	return dropMoved(ctx, m.cluster, m.old(), m.UUID)
}

// dropMoved removes an image that a machine has no more. If it is a volume it is given
// back after that: nobody is to get what is being removed.
func dropMoved(ctx context.Context, cluster *disk.Cluster, n disk.Name, vm string) error {
	if err := gone(cluster.RemoveDisk(ctx, n)); err != nil {
		return err
	}
	return cluster.Release(ctx, n, vm)
}
