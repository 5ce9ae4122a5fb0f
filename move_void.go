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
	into := on.cluster
	if a.In != nil {
		var err error
		if _, into, err = h.far(ctx, *a.In); err != nil {
			return err
		}
	}
	for i, cluster := range []*disk.Cluster{on.cluster, into} {
		n, err := disk.ParseName([]string{a.Was, a.Image}[i], "")
		if err == nil {
			err = shutOut(ctx, cluster, n)
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

// placeBack writes into the records of a machine that its disk is where the action would
// define it.
func (h *Host) placeBack(ctx context.Context, on *session, a action) error {
	if err := h.recordPlace(ctx, on.cluster, h, a); err != nil || a.Also == nil {
		return err
	}
	far, cluster, err := h.far(ctx, *a.Also)
	if err != nil {
		return err
	}
	if err := far.recordPlace(ctx, cluster, h, a); err != nil {
		return err
	}
	return far.followVoid(ctx, cluster, a.VM)
}

// recordPlace writes into a machine's record in a cluster that its disk a.To is where the
// action would define it, in the cluster of of.
func (h *Host) recordPlace(ctx context.Context, cluster *disk.Cluster, of *Host, a action) error {
	m, err := cluster.Machine(ctx, h.cfg.VMPool, a.VM)
	if err != nil {
		return gone(err)
	}
	if m.XML, err = of.placed(ctx, m.XML, a); errors.Is(err, domain.ErrExists) || errors.Is(err, domain.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	return cluster.SaveMachine(ctx, h.cfg.VMPool, m)
}

// placed is a definition with the disk a.To where the action puts it.
func (h *Host) placed(ctx context.Context, xml string, a action) (string, error) {
	if a.Verb == actPutInFile {
		return domain.Unadopt(xml, a.To, a.File, a.Format)
	}
	n, err := disk.ParseName(a.Image, "")
	if err != nil {
		return "", err
	}
	cluster, err := h.Cluster(ctx)
	if err != nil {
		return "", err
	}
	with, err := h.rbdDisk(ctx, cluster, n, h.secretUUID(cluster))
	if err != nil {
		return "", err
	}
	with.Target = a.To
	if a.Verb == actPutInCeph {
		return domain.Adopt(xml, with)
	}
	return domain.Move(xml, with)
}
