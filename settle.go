// Settling a migration whose client died, or that ended without an answer.

package vmdisk

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/domain"
	"github.com/vmdisk/vmdisk/migrate"
	"libvirt.org/go/libvirt"
)

// settleMove makes an end of a migration: the hosts are asked where the machine is,
// and that is written down. A machine whose record names a third host has gone on
// since.
func (h *Host) settleMove(ctx context.Context, on *session, source *libvirt.Connect, a action) error {
	dest, giveBack := on.conn, func() {}
	if a.To != on.host {
		if _, err := domain.Ask(ctx, a.ToURI, a.VM, evacuateTimeout); errors.Is(err, domain.ErrSilent) {
			return h.settleAlone(ctx, on, source, a, err)
		}
		var err error
		if dest, err = domain.Connect(ctx, a.ToURI, h.cfg.Timeout); err != nil {
			return err
		}
		giveBack = func() { _, _ = domain.Close(context.WithoutCancel(ctx), dest) }
	}
	defer giveBack()
	moved, err := migrate.Settle(ctx, source, dest, a.VM, h.patience())
	if errors.Is(err, migrate.ErrInterrupted) {
		err = h.resumePostcopy(ctx, source, dest, a)
		moved = err == nil
	}
	if errors.Is(err, migrate.ErrLost) { // evacuate knows the definition of one that is on neither
		h.emit(Event{Kind: Warning, Op: "repair", Object: a.Name, Detail: a.Name + " runs on neither host; to start it again:  vmdisk start " + a.Name})
		err = nil
	}
	if err == nil && !moved && a.Secret != "" {
		err = h.removeUnusedSecret(ctx, on.cluster, dest, action{Secret: a.Secret, Host: a.To})
	}
	if err != nil {
		return err
	}
	was, err := on.cluster.Machine(ctx, h.cfg.VMPool, a.VM)
	if gone(err) != nil || err == nil && was.Host != a.Host && was.Host != a.To {
		return gone(err)
	}
	at := &session{cluster: on.cluster, conn: source, host: a.Host}
	if moved {
		at.conn, at.host = dest, a.To
	}
	err = h.moved(ctx, at, a.VM)
	if errors.Is(err, domain.ErrNotFound) {
		return nil
	}
	return err
}

// settleAlone makes an end of a migration to a host that does not answer any more,
// which must not keep the machine from being worked on. It is safe only while the
// guest runs on the source: then whoever else has its disks open is the
// destination's, and is fenced, as by an evacuation. A repair there clears it away.
func (h *Host) settleAlone(ctx context.Context, on *session, source *libvirt.Connect, a action, deaf error) error {
	c, err := domain.Inspect(ctx, source, a.VM)
	if err != nil {
		return err
	}
	m, err := on.cluster.Machine(ctx, h.cfg.VMPool, a.VM)
	if err != nil {
		return err
	}
	if !c.Running || c.Paused || c.Job || m.Host != a.Host {
		return fmt.Errorf("%s is %s on %s, and %s does not say what it has of it: %w",
			a.Name, c.State, a.Host, a.To, errors.Join(migrate.ErrUnknown, deaf))
	}
	images, err := h.imagesOf(ctx, on.cluster, m)
	if err != nil {
		return err
	}
	var others []string
	for _, n := range images {
		use, err := on.cluster.Use(ctx, n)
		if errors.Is(err, disk.ErrNotFound) {
			continue
		}
		if err != nil {
			return err
		}
		known, strangers := sides(m, use)
		if len(known) == 0 {
			return fmt.Errorf("which client of %s is that of %s is not known: %w", n, a.Host, errors.Join(migrate.ErrUnknown, deaf))
		}
		others = append(others, strangers...)
	}
	slices.Sort(others)
	others = slices.Compact(others)
	m.Leave(a.To, others)
	if err := on.cluster.SaveMachine(ctx, h.cfg.VMPool, m); err != nil {
		return err
	}
	h.emit(Event{Kind: Warning, Op: "repair", Object: a.Name, Detail: fmt.Sprintf("%s does not answer: %s fenced; when it does, there:  vmdisk repair %s",
		a.To, strings.TrimSpace(count(len(others), "client")+" of it"), a.Name)})
	return fenceAll(ctx, on.cluster, others, disk.FenceTime)
}
