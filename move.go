// Move: a disk of a machine from its pool to another of the cluster, while the machine
// runs or not.

package vmdisk

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/domain"
	"github.com/vmdisk/vmdisk/secret"
)

// MoveOptions say how a disk is moved.
type MoveOptions struct {
	Bandwidth int64 // bytes a second that are copied; 0 is no limit
}

// DiskMove is a disk that is, or is to be, in another pool.
type DiskMove struct {
	VM      string `json:"vm"`
	UUID    string `json:"uuid"`
	Running bool   `json:"running"`
	Target  string `json:"target"`
	Role    string `json:"role"` // as of a [VMDisk]
	Image   string `json:"image"`
	From    string `json:"from"` // pools
	To      string `json:"to"`
	Size    int64  `json:"size"` // bytes, as the guest sees it
	Data    int64  `json:"data"` // bytes that it takes in its new pool, at most
	// Parent is what the disk shares data with until it is moved, POOL/IMAGE@SNAP, or "".
	Parent string `json:"parent"`
	// Before and After are the definition of a plan, as it is and as it is to be.
	Before string `json:"before,omitempty"`
	After  string `json:"after,omitempty"`
	// Elapsed is how long it took, Stood how long the guest stood still for it.
	Elapsed time.Duration `json:"-"`
	Stood   time.Duration `json:"-"`
}

// old and made are the disk's images.
func (m DiskMove) old() disk.Name  { return disk.Name{Pool: m.From, Image: m.Image} }
func (m DiskMove) made() disk.Name { return disk.Name{Pool: m.To, Image: m.Image} }

// MoveDisk copies a disk of a machine (its target, its image, or a volume's ID) into
// another pool, has the machine go on with the copy, and removes the image that it had.
// One that runs goes on running, as in [Host.Adopt]; that of one that is off is verified
// as it is copied. What the guest sees of the disk, its name, its limits and its
// settings stay as they were. A copy shares no data with an image any more: it takes as
// much room as the guest has data, and the image is not needed for it.
//
// What cannot be moved is refused before anything is changed. A disk that is in the pool
// already is [domain.ErrExists]; a disk or a pool that is not there is not found; an
// image of its name in the pool [disk.ErrExists]; one with snapshots or clones
// [disk.ErrHasSnapshots] or [disk.ErrHasClones]; a pool without room [disk.ErrNoSpace]; a
// config drive, and a pool in which such a disk cannot be, [disk.ErrInvalid]; a machine
// with a job of libvirt's under way [domain.ErrInvalid].
//
// If ctx ends while the disk is copied, it is where it was, and so on any failure,
// unless the error has something Left, which a repair finishes or takes back.
//
// Similar to: virsh blockcopy --pivot; rbd cp, virsh define and rbd rm.
func (h *Host) MoveDisk(ctx context.Context, vm, which, pool string, o MoveOptions) (DiskMove, error) {
	const op = "move"
	m := &moving{h: h, o: o}
	defer m.end()
	if err := m.prepare(ctx, vm, which, pool); err != nil {
		return DiskMove{}, failed(op, vm, err)
	}
	err := m.move(ctx)
	m.Before, m.After = "", ""
	return m.DiskMove, m.state(err)
}

// PlanMoveDisk says what [Host.MoveDisk] would do, and refuses what that refuses. It
// changes nothing.
func (h *Host) PlanMoveDisk(ctx context.Context, vm, which, pool string) (DiskMove, error) {
	const op = "move"
	m := &moving{h: h}
	defer m.end()
	if err := m.prepare(ctx, vm, which, pool); err != nil {
		return DiskMove{}, failed(op, vm, err)
	}
	err := m.look(ctx)
	if err == nil {
		m.Before, err = domain.Plain(m.Before)
	}
	if err == nil {
		m.After, err = domain.Plain(m.After)
	}
	return m.DiskMove, failed(op, vm, err)
}

// moving is the state that the steps share.
type moving struct {
	session
	h      *Host
	o      MoveOptions
	vm     domain.Info
	secret secret.Secret
	DiskMove
	owned   bool   // it is a volume that vmdisk gave to the machine
	client  string // this process's address, if the machine is off
	release func() // lets the old image be written again
	defined bool   // the machine is, with the copy
}

// prepare finds the machine and its disk, and refuses a pool in which that cannot be.
func (m *moving) prepare(ctx context.Context, vm, which, pool string) (err error) {
	if err := disk.CheckName("pool", pool); err != nil {
		return err
	}
	if m.vm, err = m.find(ctx, m.h, vm); err != nil {
		return err
	}
	d, err := diskOf(m.vm, which)
	if err != nil {
		return err
	}
	m.DiskMove = DiskMove{VM: m.vm.Name, UUID: m.vm.UUID, Running: m.vm.Running, Target: d.Target,
		Role: disk.Role(m.vm.UUID, d.Image), Image: d.Image, From: d.Pool, To: pool}
	return m.into(ctx) // the rest is looked at when nobody else moves it
}

// diskOf is the disk of a machine in Ceph that is meant: by its target, its image with
// or without the pool, or a volume's ID.
func diskOf(vm domain.Info, which string) (domain.DiskInfo, error) {
	for _, d := range vm.Disks {
		switch which {
		case d.Target:
			if d.Pool == "" {
				return d, badInput("%s of %s is not in Ceph", which, vm.Name)
			}
			return d, nil
		case d.Image, d.Pool + "/" + d.Image, disk.VolumeID(d.Image):
			if d.Pool != "" {
				return d, nil
			}
		}
	}
	return domain.DiskInfo{}, &domain.Error{Object: which, Kind: domain.ErrNotFound, Reason: "no such disk in " + vm.Name}
}

// look refuses what is in the way of the machine and its images, and measures the disk.
func (m *moving) look(ctx context.Context) (err error) {
	if m.vm, err = domain.Find(ctx, m.conn, m.vm.UUID); err != nil {
		return err
	}
	m.Running = m.vm.Running
	if err := m.h.unhindered(ctx, m.session, m.vm); err != nil {
		return err
	}
	if err := m.where(ctx); err != nil {
		return err
	}
	if err := m.cluster.Absent(ctx, m.made()); err != nil {
		return err
	}
	if err := m.h.whole(ctx, m.cluster, m.VM, m.old()); err != nil {
		return err
	}
	owner, err := m.cluster.Owner(ctx, m.old())
	if err == nil && owner.UUID != m.UUID {
		err = &disk.Error{Object: m.old().String(), Kind: disk.ErrInUse, Holders: []string{owner.String()}}
	}
	if m.owned = err == nil; gone(err) != nil {
		return err
	}
	was, err := m.cluster.Disk(ctx, m.old())
	if err != nil {
		return err
	}
	m.Size, m.Parent = was.Size, was.Parent
	if from, err := disk.ParseName(m.Parent, ""); m.Parent != "" && err == nil && from.Pool == m.h.cfg.BackupPool {
		return &disk.Error{Object: m.old().String(), Kind: disk.ErrInUse,
			Reason: "reads from the backup " + m.Parent + "; before:  vmdisk volume flatten " + disk.VolumeID(m.Image)}
	}
	if m.Data, err = m.cluster.Movable(ctx, m.old()); err != nil {
		return err
	}
	has, err := m.cluster.Capacity(ctx, m.To)
	if err == nil && m.Data > has.Pools[0].Available {
		err = &disk.Error{Object: "pool " + m.To, Kind: disk.ErrNoSpace, Reason: fmt.Sprintf("has room for %s, %s of %s has up to %s of data",
			disk.FormatSize(has.Pools[0].Available), m.Target, m.VM, disk.FormatSize(m.Data))}
	}
	return err
}

// where makes sure that the disk is where it was found, now and at the next start, and
// makes the definition that the machine is to have.
func (m *moving) where(ctx context.Context) error {
	now, err := domain.Relocation(ctx, m.conn, m.UUID, m.Target)
	if err != nil {
		return err
	}
	in := func(d domain.DiskInfo) bool { return d.Pool == m.From && d.Image == m.Image }
	if !in(now.Kept) || now.Running && !in(now.Live) {
		return &domain.Error{Object: m.Target + " of " + m.VM, Kind: domain.ErrInvalid,
			Reason: "is not " + m.old().String() + " both now and in its definition; stop it, or correct that"}
	}
	if _, m.Before, err = domain.Definition(ctx, m.conn, m.UUID); err != nil {
		return err
	}
	with, err := m.h.rbdDisk(ctx, m.cluster, m.made(), m.h.secretUUID(m.cluster))
	if err != nil {
		return err
	}
	with.Target = m.Target
	m.After, err = domain.Move(m.Before, with)
	return err
}

// into refuses a pool in which the disk cannot be.
func (m *moving) into(ctx context.Context) error {
	own := m.Role != disk.RoleVolume
	switch {
	case m.To == m.From:
		return &domain.Error{Object: m.Target + " of " + m.VM, Kind: domain.ErrExists, Reason: "is in pool " + m.To + " already"}
	case m.Role == disk.RoleConfig || m.Role == disk.RoleRescue:
		return badInput("%s of %s is its %s disk, which is made anew and not moved", m.Target, m.VM, m.Role)
	case m.To == disk.ImagePool || m.To == m.h.cfg.BackupPool:
		return badInput("pool %s is for other things than disks", m.To)
	case own && m.To == disk.VolumePool:
		return badInput("pool %s is for volumes; %s is the machine's own disk", m.To, m.old())
	case !own && m.To == m.h.cfg.VMPool:
		return badInput("pool %s is for machines' own disks; %s is a volume", m.To, m.old())
	}
	pool, err := m.cluster.Pool(ctx, m.To)
	switch {
	case err != nil:
		return err
	case pool.Erasure:
		return badInput("pool %s is erasure-coded, which RBD's headers cannot be in", m.To)
	case !pool.Initialised:
		return badInput("pool %s is not RBD's; to make it so:  rbd pool init %s", m.To, m.To)
	}
	return nil
}

// state says of a failure what is left, and what brings it to an end.
func (m *moving) state(err error) error {
	var e *Error
	if errors.As(err, &e) && errors.Is(err, disk.ErrNoSpace) && len(e.Left) > 0 {
		e.Next = "its guest goes on in pool " + m.From + "; when there is room:  vmdisk repair " + m.VM
	}
	return err
}
