// A move whose host is gone: the machine's record says which of its images counts.

package vmdisk

import (
	"context"
	"errors"
	"slices"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/domain"
)

// settleVoid makes an end of a move without its host. Both images are alike, or the
// guest has gone on with the one in the record. The other is removed.
func (h *Host) settleVoid(ctx context.Context, on *session, a action) error {
	for _, image := range []string{a.Was, a.Image} {
		n, err := disk.ParseName(image, "")
		if err == nil {
			err = shutOut(ctx, on.cluster, n)
		}
		if err != nil {
			return err
		}
	}
	m, err := on.cluster.Machine(ctx, h.cfg.VMPool, a.VM)
	if err != nil {
		return gone(err)
	}
	all, err := domain.ParseDisks(m.XML)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(all, func(d domain.DiskInfo) bool { return d.Target == a.To })
	if i < 0 { // it has been taken out since
		return nil
	}
	_, loser := a.sides(a.arrived(all[i]))
	return h.act(ctx, on, loser)
}

// recordPlace writes into a machine's record that its disk a.To is where the action would
// define it.
func (h *Host) recordPlace(ctx context.Context, on *session, a action) error {
	m, err := on.cluster.Machine(ctx, h.cfg.VMPool, a.VM)
	if err != nil {
		return gone(err)
	}
	if m.XML, err = h.placed(ctx, on, m.XML, a); errors.Is(err, domain.ErrExists) || errors.Is(err, domain.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	return on.cluster.SaveMachine(ctx, h.cfg.VMPool, m)
}

// placed is a definition with the disk a.To where the action puts it.
func (h *Host) placed(ctx context.Context, on *session, xml string, a action) (string, error) {
	if a.Verb == actPutInFile {
		return domain.Unadopt(xml, a.To, a.File, a.Format)
	}
	n, err := disk.ParseName(a.Image, "")
	if err != nil {
		return "", err
	}
	with, err := h.rbdDisk(ctx, on.cluster, n, h.secretUUID(on.cluster))
	if err != nil {
		return "", err
	}
	with.Target = a.To
	if a.Verb == actPutInCeph {
		return domain.Adopt(xml, with)
	}
	return domain.Move(xml, with)
}
