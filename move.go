// Move: a disk of a machine from its pool to another, of this or another cluster, while
// the machine runs or not.

package vmdisk

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/domain"
	"github.com/vmdisk/vmdisk/secret"
)

// MoveOptions say how a disk is moved.
type MoveOptions struct {
	Bandwidth int64 // bytes a second that are copied; 0 is no limit
	// Ceph is the cluster that has the pool; nil is the one that has the disk. Its ceph.conf
	// must be where the machine's host has it, too.
	Ceph *disk.Config
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
	// ToConf is the ceph.conf of the other cluster in which To is, or "".
	ToConf string `json:"to_conf,omitempty"`
	Size   int64  `json:"size"` // bytes, as the guest sees it
	Data   int64  `json:"data"` // bytes that it takes in its new pool, at most
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
// A machine's disks go to another cluster one by one. Until the last has gone it is known
// to both and can be neither removed nor evacuated; then its record is in the other one,
// with which it is worked on from then on.
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
func (h *Host) PlanMoveDisk(ctx context.Context, vm, which, pool string, o MoveOptions) (DiskMove, error) {
	const op = "move"
	m := &moving{h: h, o: o}
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
	into   *Host // with the cluster that has the pool
	there  *session
	in     *cephPlace // that cluster, if it is another
	held   *opened    // the machine, there
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
	if err := m.openThere(ctx); err != nil {
		return err
	}
	return m.fits(ctx) // the rest is looked at when nobody else moves it
}

// openThere opens the cluster that has the pool.
func (m *moving) openThere(ctx context.Context) error {
	m.into, m.there = m.h, &m.session
	if m.o.Ceph == nil {
		return nil
	}
	p, err := cephPlaceOf(*m.o.Ceph)
	if err != nil {
		return err
	}
	m.in, m.ToConf = &p, p.Conf
	m.into, m.there, err = m.h.farSession(ctx, &m.session, p)
	return err
}

// diskOf is the disk of a machine in Ceph that is meant: by its target, its image with
// or without the pool, or a volume's ID.
func diskOf(vm domain.Info, which string) (domain.DiskInfo, error) {
	for _, d := range vm.Disks {
		switch which {
		case d.Target:
			if abroad(d) {
				return d, &domain.Error{Object: which + " of " + vm.Name, Kind: domain.ErrExists,
					Reason: "is in another cluster already: " + strings.TrimPrefix(d.Source, "rbd:")}
			}
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
	if m.vm, err = findOwn(ctx, m.cluster, m.conn, m.vm.UUID); err != nil {
		return err
	}
	m.Running = m.vm.Running
	if err := m.h.unhindered(ctx, m.session, m.vm); err != nil {
		return err
	}
	if err := m.where(ctx); err != nil {
		return err
	}
	if err := m.there.cluster.Absent(ctx, m.made()); err != nil {
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
	has, err := m.there.cluster.Capacity(ctx, m.To)
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
	is := []domain.DiskInfo{now.Kept, now.Live}
	if err := own(ctx, m.cluster, is); err != nil {
		return err
	}
	in := func(d domain.DiskInfo) bool { return d.Pool == m.From && d.Image == m.Image }
	if !in(is[0]) || now.Running && !in(is[1]) {
		return &domain.Error{Object: m.Target + " of " + m.VM, Kind: domain.ErrInvalid,
			Reason: "is not " + m.old().String() + " both now and in its definition; stop it, or correct that"}
	}
	if _, m.Before, err = domain.Definition(ctx, m.conn, m.UUID); err != nil {
		return err
	}
	with, err := m.into.rbdDisk(ctx, m.there.cluster, m.made(), m.into.secretUUID(m.there.cluster))
	if err != nil {
		return err
	}
	with.Target = m.Target
	m.After, err = domain.Move(m.Before, with)
	return err
}

// fits refuses a pool in which the disk cannot be.
func (m *moving) fits(ctx context.Context) error {
	own := m.Role != disk.RoleVolume
	switch {
	case m.To == m.From && m.in == nil:
		return &domain.Error{Object: m.Target + " of " + m.VM, Kind: domain.ErrExists, Reason: "is in pool " + m.To + " already"}
	case m.Role == disk.RoleConfig && m.in != nil && m.Running:
		return badInput("%s of %s is its config drive, which nobody can take from a guest that runs; stop it first", m.Target, m.VM)
	case m.Role == disk.RoleConfig && m.in == nil, m.Role == disk.RoleRescue:
		return badInput("%s of %s is its %s disk, which is made anew and not moved", m.Target, m.VM, m.Role)
	case m.To == disk.ImagePool || m.To == m.into.cfg.BackupPool:
		return badInput("pool %s is for other things than disks", m.To)
	case own && m.To == disk.VolumePool:
		return badInput("pool %s is for volumes; %s is the machine's own disk", m.To, m.old())
	case !own && m.To == m.into.cfg.VMPool:
		return badInput("pool %s is for machines' own disks; %s is a volume", m.To, m.old())
	}
	pool, err := m.there.cluster.Pool(ctx, m.To)
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
