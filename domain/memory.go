// Memory: what a host has left, and what a machine takes.

package domain

import (
	"context"

	"libvirt.org/go/libvirt"
)

// Memory is what a host has, in bytes.
type Memory struct {
	Total int64
	// Free could be given to a machine at once, without swapping.
	Free int64
}

// HostMemory asks a host what memory it has.
//
// Similar to: virsh nodememstats.
func HostMemory(ctx context.Context, conn *libvirt.Connect) (Memory, error) {
	if err := ctx.Err(); err != nil {
		return Memory{}, err
	}
	return call(ctx, conn, "read memory of", "host", func() (Memory, error) {
		s, err := conn.GetMemoryStats(libvirt.NODE_MEMORY_STATS_ALL_CELLS, 0)
		if err != nil {
			return Memory{}, wrap("read memory of", "host", err)
		}
		// What caches files goes if a machine needs it.
		return Memory{Total: int64(s.Total) << 10, Free: int64(s.Free+s.Buffers+s.Cached) << 10}, nil
	})
}

// GuestMemory is how much a machine is given, in bytes.
//
// Similar to: virsh dommemstat, its "actual".
func GuestMemory(ctx context.Context, conn *libvirt.Connect, vm string) (int64, error) {
	return read(ctx, conn, vm, func(d *libvirt.Domain) (int64, error) {
		info, err := d.GetInfo()
		if err != nil {
			return 0, wrap("inspect", vm, err)
		}
		return int64(info.MaxMem) << 10, nil
	})
}
