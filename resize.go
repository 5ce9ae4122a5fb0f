// Resize: the root disk of a machine, running or not.

package vmdisk

import (
	"context"
	"fmt"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/domain"
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
	if err := h.run(ctx, op, g.vm.Name, g.step()); err != nil {
		return VM{}, err
	}
	return h.outcome(ctx, g.conn, g.vm.UUID)
}

// growth is a root disk that is to grow.
type growth struct {
	session
	h      *Host
	size   int64
	by     bool
	vm     domain.Info
	root   disk.Name
	target string
	has    int64
}

func (g *growth) prepare(ctx context.Context, vm string) (err error) {
	if g.vm, err = g.find(ctx, g.h, vm); err != nil {
		return err
	}
	if g.root, g.target, err = rootOf(g.vm); err != nil {
		return err
	}
	if g.has, err = g.cluster.Size(ctx, g.root); err != nil {
		return err
	}
	if g.by {
		g.size += g.has
	}
	if g.size < g.has {
		return &disk.Error{Object: g.root.String(), Kind: disk.ErrInvalid,
			Reason: fmt.Sprintf("it is %s, shrinking it to %s would cut data off", disk.FormatSize(g.has), disk.FormatSize(g.size))}
	}
	return nil
}

func (g *growth) step() step {
	return step{
		name:   "grow",
		detail: says(disk.FormatSize(g.has) + " → " + disk.FormatSize(g.size)),
		do: func(ctx context.Context) error {
			if g.vm.Running {
				return domain.Resize(ctx, g.conn, g.vm.UUID, g.target, g.size)
			}
			_, err := g.cluster.Grow(ctx, g.root, g.size)
			return err
		},
	}
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
