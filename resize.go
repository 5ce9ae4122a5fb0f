// Resize: the root disk of a machine, running or not.

package vmdisk

import (
	"context"
	"fmt"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/domain"
	"libvirt.org/go/libvirt"
)

// Resize grows a machine's root disk to size bytes, or by size bytes if by is
// set. A running guest sees it at once. A size below the disk's is
// [disk.ErrInvalid].
//
// Similar to: virsh blockresize, or rbd resize if the machine is off.
func (h *Host) Resize(ctx context.Context, vm string, size int64, by bool) (VM, error) {
	const op = "resize"
	g := &growth{h: h, size: size, by: by}
	defer g.end()
	if err := g.prepare(ctx, vm); err != nil {
		return VM{}, failed(op, vm, err)
	}
	t := h.onMachine(&g.session, op, g.vm)
	t.check = g.measure
	t.steps = func() []step { return []step{g.step()} }
	if err := h.perform(ctx, t); err != nil {
		return VM{}, err
	}
	return h.outcome(ctx, g.conn, g.vm.UUID)
}

// growth is a root disk that is to grow.
type growth struct {
	session
	h    *Host
	size int64
	by   bool
	vm   domain.Info
	root disk.Name
	has  int64
}

func (g *growth) prepare(ctx context.Context, vm string) (err error) {
	if g.vm, err = g.find(ctx, g.h, vm); err != nil {
		return err
	}
	g.root, _, err = rootOf(g.vm)
	return err
}

// measure looks at the machine and its disk again, now that nobody else changes them.
func (g *growth) measure(ctx context.Context) (err error) {
	if g.vm, err = findOwn(ctx, g.cluster, g.conn, g.vm.UUID); err != nil {
		return err
	}
	if g.has, err = g.cluster.Size(ctx, g.root); err != nil {
		return err
	}
	if g.by {
		g.size, g.by = g.size+g.has, false
	}
	if g.size < g.has {
		return &disk.Error{Object: g.root.String(), Kind: disk.ErrInvalid,
			Reason: fmt.Sprintf("it is %s, shrinking it to %s would cut data off", disk.FormatSize(g.has), disk.FormatSize(g.size))}
	}
	return nil
}

func (g *growth) step() step {
	grow := action{Verb: actGrow, Image: g.root.String(), VM: g.vm.UUID, Name: g.vm.Name, Host: g.host, Size: g.size}
	return step{
		name:   "grow",
		detail: says(disk.FormatSize(g.has) + " → " + disk.FormatSize(g.size)),
		do:     func(ctx context.Context) error { return g.h.act(ctx, &g.session, grow) },
		on:     []action{grow},
	}
}

// grow grows a root disk, by its QEMU if there is one.
func (h *Host) grow(ctx context.Context, on *session, conn *libvirt.Connect, n disk.Name, a action) error {
	info, err := findOwn(ctx, on.cluster, conn, a.VM)
	if err != nil {
		return err
	}
	if !info.Running {
		_, err = on.cluster.Grow(ctx, n, a.Size)
		return err
	}
	_, target, err := rootOf(info)
	if err != nil {
		return err
	}
	return domain.Resize(ctx, conn, a.VM, target, a.Size)
}

// rootOf is the disk that carries the machine's UUID.
func rootOf(info domain.Info) (n disk.Name, target string, err error) {
	for _, d := range info.Disks {
		if d.Image == disk.RootDiskName(info.UUID) {
			return disk.Name{Pool: d.Pool, Image: d.Image}, d.Target, nil
		}
	}
	return n, "", &disk.Error{Object: "root disk of " + info.Name, Kind: disk.ErrNotFound,
		Reason: "it has no disk " + disk.RootDiskName(info.UUID) + " in Ceph"}
}
