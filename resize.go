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
	var with session
	defer with.end()
	info, err := with.find(ctx, h, vm)
	if err != nil {
		return VM{}, failed(op, vm, err)
	}
	cluster, conn := with.cluster, with.conn
	root, target, err := rootOf(info)
	if err != nil {
		return VM{}, failed(op, vm, err)
	}
	has, err := cluster.Size(ctx, root)
	if err != nil {
		return VM{}, failed(op, vm, err)
	}
	if by {
		size += has
	}
	if size < has {
		return VM{}, failed(op, vm, &disk.Error{Object: root.String(), Kind: disk.ErrInvalid,
			Reason: fmt.Sprintf("it is %s, shrinking it to %s would cut data off", disk.FormatSize(has), disk.FormatSize(size))})
	}
	err = h.run(ctx, op, info.Name, step{
		name:   "grow",
		detail: says(disk.FormatSize(has) + " → " + disk.FormatSize(size)),
		do: func(ctx context.Context) error {
			if info.Running {
				return domain.Resize(ctx, conn, info.UUID, target, size)
			}
			_, err := cluster.Grow(ctx, root, size)
			return err
		},
	})
	if err != nil {
		return VM{}, err
	}
	return h.outcome(ctx, conn, info.UUID)
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
