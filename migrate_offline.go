// Cold migration: the definition of a machine that is off goes to another host.
//
// libvirt can do that (VIR_MIGRATE_OFFLINE), by defining it there and undefining it
// here in one call: should that be interrupted, nobody knows how far it was. As steps
// it can be taken back, or finished, from the journal, and the record changes hosts in
// the right moment: between the two.

package vmdisk

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/domain"
	"github.com/vmdisk/vmdisk/migrate"
	"libvirt.org/go/libvirt"
)

// otherWay is a machine that is to be moved in the other way.
type otherWay struct{ offline bool }

func (o *otherWay) Error() string { return "the other way" }

func (o *otherWay) next() string {
	if o.offline {
		return "to move it while it runs:  the same command without --offline"
	}
	return "to move it as it is:  the same command with --offline"
}

// suits refuses a machine that cannot be moved in the way that is asked for.
func (m *move) suits() error {
	e := &domain.Error{Object: "VM " + m.vm.Name, Err: &otherWay{m.o.Offline}, Reason: "is " + m.vm.State}
	switch {
	case m.vm.Running && m.o.Offline:
		e.Kind = migrate.ErrRunning
		return e
	case !m.vm.Running && !m.o.Offline:
		e.Kind = domain.ErrNotRunning
		return e
	}
	return nil
}

// offline are the steps of a cold migration. Until the record is the destination's it
// is taken back, from then on it is finished.
func (m *move) offline() []step {
	begin := time.Now()
	there := action{VM: m.vm.UUID, Name: m.vm.Name, Host: m.result.To, URI: m.uri}
	undefine, record, forget := there, there, there
	undefine.Verb, record.Verb, forget.Verb = actUndefine, actRecord, actUndefine
	forget.Host, forget.URI = m.host, m.from
	recording := false
	steps := []step{m.giveSecret()}
	if !m.o.NoCheck {
		steps = append(steps, m.checkStep())
	}
	return append(steps, []step{
		{name: "define", detail: says(m.vm.Name + " on " + m.result.To), do: m.defineThere, back: []action{undefine}},
		{name: "record", detail: says(m.vm.Name + " on " + m.result.To), commit: true, on: []action{record},
			begun: func() bool { return recording },
			do: func(ctx context.Context) error {
				recording, m.moved = true, true
				return m.h.moved(ctx, m.dest(), m.vm.UUID)
			}},
		{name: "undefine", detail: says(m.vm.Name + " on " + m.host), on: []action{forget},
			do: func(ctx context.Context) error {
				m.result.Elapsed = time.Since(begin)
				return domain.Undefine(ctx, m.conn, m.vm.UUID)
			}},
	}...)
}

// defineThere defines the machine on the destination, unless it would lose by that.
func (m *move) defineThere(ctx context.Context) error {
	local, err := domain.LocalState(ctx, m.conn, m.vm.UUID)
	if err == nil && len(local) > 0 {
		err = fmt.Errorf("%w: only %s has its %s", migrate.ErrUnsafe, m.host, strings.Join(local, ", its "))
	}
	if err != nil {
		return err
	}
	rewrite, err := m.rewrite(ctx)
	if err != nil {
		return err
	}
	_, kept, err := domain.MigratableXML(ctx, m.conn, m.vm.UUID)
	if err != nil {
		return err
	}
	xml, _, err := rewrite(kept)
	if err != nil {
		return err
	}
	err = domain.Define(ctx, m.to, m.vm.Name, m.vm.UUID, xml)
	if errors.Is(err, domain.ErrExists) {
		err = fmt.Errorf("on %s: %w", m.result.To, err)
	}
	return err
}

// recordThere is [Host.moved] for who finds it in the journal.
func (h *Host) recordThere(ctx context.Context, cluster *disk.Cluster, conn *libvirt.Connect, a action) error {
	return h.moved(ctx, &session{cluster: cluster, conn: conn, host: a.Host}, a.VM)
}
