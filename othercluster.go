// Disks in another cluster than the Host's. A machine can have such while its disks move
// there one by one; for whatever is done here they are not in Ceph.

package vmdisk

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/domain"
	"libvirt.org/go/libvirt"
)

// own makes what is not in Ceph of the disks that are in another cluster.
func own(ctx context.Context, cluster *disk.Cluster, all []domain.DiskInfo) error {
	for i := range all {
		d := &all[i]
		is, err := isOwn(ctx, cluster, *d)
		if err != nil {
			return err
		}
		if !is {
			d.Source, d.Pool, d.Image = "rbd:"+d.Pool+"/"+d.Image+" of "+confOf(*d), "", ""
		}
	}
	return nil
}

// isOwn says whether a disk is in a cluster, or not in Ceph. The path of ceph.conf alone
// does not tell: one cluster can have two.
func isOwn(ctx context.Context, cluster *disk.Cluster, d domain.DiskInfo) (bool, error) {
	if d.Pool == "" || d.Monitors == "" || confOf(d) == cluster.Conf() {
		return true, nil
	}
	return cluster.HasMonitor(ctx, strings.Split(d.Monitors, ",")...)
}

// confOf is the ceph.conf of a disk's cluster.
func confOf(d domain.DiskInfo) string {
	if d.Conf == "" {
		return disk.DefaultConf
	}
	return d.Conf
}

// findOwn is [domain.Find] with the disks that a cluster has.
func findOwn(ctx context.Context, cluster *disk.Cluster, conn *libvirt.Connect, vm string) (domain.Info, error) {
	info, err := domain.Find(ctx, conn, vm)
	if err != nil {
		return info, err
	}
	return info, own(ctx, cluster, info.Disks)
}

// disksOf is [domain.Disks] with those that a cluster has.
func disksOf(ctx context.Context, cluster *disk.Cluster, conn *libvirt.Connect, vm string) ([]domain.DiskInfo, error) {
	all, err := domain.Disks(ctx, conn, vm)
	if err != nil {
		return nil, err
	}
	return all, own(ctx, cluster, all)
}

// listOwn is [domain.List] with the disks that a cluster has.
func listOwn(ctx context.Context, cluster *disk.Cluster, conn *libvirt.Connect) ([]domain.Info, error) {
	all, err := domain.List(ctx, conn)
	for i := 0; err == nil && i < len(all); i++ {
		err = own(ctx, cluster, all[i].Disks)
	}
	return all, err
}

// recordedDisks are the disks that a machine has by its record.
func recordedDisks(ctx context.Context, cluster *disk.Cluster, m disk.Machine) ([]domain.DiskInfo, error) {
	if m.XML == "" {
		return nil, nil
	}
	all, err := domain.ParseDisks(m.XML)
	if err != nil {
		return nil, err
	}
	return all, own(ctx, cluster, all)
}

// abroad says whether a disk is in another cluster, as [own] has found.
func abroad(d domain.DiskInfo) bool { return d.Pool == "" && d.Monitors != "" }

// allAbroad says whether a machine has disks in other clusters and none here.
func allAbroad(all []domain.DiskInfo) bool {
	return slices.ContainsFunc(all, abroad) &&
		!slices.ContainsFunc(all, func(d domain.DiskInfo) bool { return d.Pool != "" })
}

// refuseAbroad refuses what would tear a machine from a disk of its that is in another
// cluster: who has that open there cannot be seen from here, nor fenced.
func refuseAbroad(vm string, all []domain.DiskInfo) error {
	i := slices.IndexFunc(all, abroad)
	if i < 0 {
		return nil
	}
	e := &disk.Error{Object: "VM " + vm, Kind: disk.ErrInvalid,
		Err:    &hindered{"bring its disks into one cluster first:  vmdisk move " + vm + " DISK POOL --to-conf FILE"},
		Reason: "has " + all[i].Target + " in another cluster: " + strings.TrimPrefix(all[i].Source, "rbd:")}
	if allAbroad(all) {
		e.Reason = "is another cluster's, that of " + confOf(all[i])
		e.Err = &hindered{"the same command with  --conf " + confOf(all[i])}
	}
	return e
}

// notAllAbroad refuses to work on a machine that has no disk here and some in another
// cluster: who else has it, that one's records know.
func (h *Host) notAllAbroad(ctx context.Context, on *session, vm string) error {
	if err := on.openHost(ctx, h); err != nil {
		return err
	}
	all, err := disksOf(ctx, on.cluster, on.conn, vm)
	if err == nil && allAbroad(all) {
		err = refuseAbroad(vm, all)
	}
	if errors.Is(err, domain.ErrNotFound) {
		return nil
	}
	return err
}

// isAway says whether a machine has all its disks in other clusters, now and at its next
// start.
func isAway(ctx context.Context, on *session, vm string) (bool, error) {
	all, err := disksOf(ctx, on.cluster, on.conn, vm)
	return allAbroad(all), err
}
