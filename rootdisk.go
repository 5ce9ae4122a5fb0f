// Root disks without machines, for tools that define their own domains.

package vmdisk

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/google/uuid"
	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/domain"
)

// DiskOptions say what root disk to make.
type DiskOptions struct {
	Image string // [POOL/]ID[@SNAP] to clone
	Size  int64  // bytes; 0 is the image's
	UUID  string // of the machine that it is for; "" is a new one
	// Format "raw" clones an image whose first bytes are those of another format;
	// "" refuses it with [disk.ErrNotRaw].
	Format string
}

// CreateDisk clones an image to UUID_disk, of the size asked for, as [Host.Boot] does,
// and makes no machine. On failure nothing is left.
//
// Similar to: rbd clone and rbd resize.
func (h *Host) CreateDisk(ctx context.Context, o DiskOptions) (disk.Disk, error) {
	all, err := h.CreateDisks(ctx, 1, o)
	if err == nil && len(all) == 0 { // somebody was quicker to remove it
		err = failed("create", "disk", disk.ErrNotFound)
	}
	if err != nil {
		return disk.Disk{}, err
	}
	return all[0], nil
}

// diskBatch is how many disks are one workflow. Its entry in the journal names them all.
const diskBatch = 100

// CreateDisks makes count disks as [Host.CreateDisk] does one, a hundred at a time:
// each hundred comes to be whole or not at all. It returns those that did, also if it
// fails.
func (h *Host) CreateDisks(ctx context.Context, count int, o DiskOptions) ([]disk.Disk, error) {
	all := []disk.Disk{}
	for left := count; left > 0; left -= diskBatch {
		more, err := h.createDisks(ctx, min(left, diskBatch), o)
		if err != nil {
			return all, err
		}
		all = append(all, more...)
	}
	return all, nil
}

func (h *Host) createDisks(ctx context.Context, count int, o DiskOptions) ([]disk.Disk, error) {
	const op = "create"
	image, err := disk.ParseImage(o.Image)
	if err != nil {
		return nil, failed(op, "disk", err)
	}
	ids := []string{o.UUID}
	if o.UUID == "" {
		ids = ids[:0]
		for range count {
			ids = append(ids, uuid.NewString())
		}
	}
	t := task{op: op, pool: h.cfg.VMPool}
	var disks []disk.Name
	var images []string
	for _, given := range ids {
		id, err := uuid.Parse(given)
		if err != nil || len(ids) < count {
			return nil, failed(op, "disk", badInput("UUID %q is not one, or is given for %d disks", given, count))
		}
		disks = append(disks, disk.Name{Pool: t.pool, Image: disk.RootDiskName(id.String())})
		images = append(images, disk.RootDiskName(id.String()))
		t.leases = append(t.leases, t.pool+"/"+id.String())
	}
	b := &boot{h: h, image: image}
	b.o.Size, b.o.Format = o.Size, o.Format
	if b.cluster, err = h.Cluster(ctx); err != nil {
		return nil, failed(op, "disk", err)
	}
	t.object, t.on = disks[0].String(), &b.session
	if count > 1 {
		t.object = fmt.Sprintf("%d disks", count)
	}
	t.check = func(ctx context.Context) error { return b.cluster.Absent(ctx, disks...) }
	t.steps = func() []step { return []step{b.cloneStep(disks...)} }
	if err := h.perform(ctx, t); err != nil {
		return nil, err
	}
	made, err := b.cluster.Described(context.WithoutCancel(ctx), t.pool, images...)
	return made, failed(op, t.object, err)
}

// Disks lists the root disks, with parent, use and watchers.
//
// Similar to: rbd ls -l vms, rbd du and rbd status.
func (h *Host) Disks(ctx context.Context) ([]disk.Disk, error) {
	cluster, err := h.Cluster(ctx)
	if err != nil {
		return nil, failed("list", "disks", err)
	}
	all, err := cluster.Disks(ctx, h.cfg.VMPool)
	return all, failed("list", "disks", err)
}

// Disk describes one root disk, named by its machine's UUID, UUID_disk or
// POOL/IMAGE.
func (h *Host) Disk(ctx context.Context, spec string) (disk.Disk, error) {
	cluster, name, err := h.diskName(ctx, spec)
	if err != nil {
		return disk.Disk{}, failed("inspect", spec, err)
	}
	d, err := cluster.Disk(ctx, name)
	return d, failed("inspect", spec, err)
}

// RemoveDisk removes a root disk that nobody has open and nothing depends on. One
// of a machine that this host defines is [disk.ErrInUse]; whether another host
// defines it is not asked.
//
// Similar to: rbd rm.
func (h *Host) RemoveDisk(ctx context.Context, spec string) error {
	const op = "remove"
	cluster, name, err := h.diskName(ctx, spec)
	if err != nil {
		return failed(op, spec, err)
	}
	on := &session{cluster: cluster}
	defer on.end()
	leased := name
	if id := machineOf(name); id != "" {
		leased.Image = id
	}
	repaired, err := h.repairLeft(ctx, on, leased.Pool, leased.Image)
	if err == nil {
		_, err = cluster.Size(ctx, name)
	}
	if repaired && errors.Is(err, disk.ErrNotFound) { // which has finished it
		return nil
	}
	if err != nil {
		return failed(op, spec, err)
	}
	return h.perform(ctx, task{
		op: op, object: name.String(), on: on, pool: name.Pool, leases: slices.Compact([]string{leased.String(), name.String()}), forward: true,
		check: func(ctx context.Context) error {
			if err := h.refuseOwned(ctx, name); err != nil {
				return err
			}
			return cluster.Removable(ctx, name)
		},
		steps: steps(h.forward(on, "remove", name.String(), action{Verb: actRemove, Image: name.String()})),
	})
}

// refuseOwned refuses the disk of a machine that the host defines. Without a
// libvirt to ask, there is none.
func (h *Host) refuseOwned(ctx context.Context, n disk.Name) error {
	id, _, _ := strings.Cut(n.Image, "_")
	if uuid.Validate(id) != nil {
		return nil
	}
	conn, giveBack, err := h.borrow(ctx)
	if err != nil {
		return nil
	}
	defer giveBack()
	info, err := domain.Find(ctx, conn, id)
	if errors.Is(err, domain.ErrNotFound) {
		return nil
	}
	if err == nil && disk.Role(info.UUID, n.Image) == disk.RoleOther {
		return nil // what a rebuild left; should it be in use after all, it is open
	}
	if err == nil {
		err = &disk.Error{Op: "remove", Object: n.String(), Kind: disk.ErrInUse,
			Holders: []string{"disk of VM " + info.Name + ", which is " + info.State + "; with it:  vmdisk rm " + info.Name}}
	}
	return err
}

func (h *Host) diskName(ctx context.Context, spec string) (*disk.Cluster, disk.Name, error) {
	name, err := disk.ParseRootDisk(spec)
	if err != nil {
		return nil, name, err
	}
	if name.Pool == disk.VMPool {
		name.Pool = h.cfg.VMPool
	}
	cluster, err := h.Cluster(ctx)
	return cluster, name, err
}
