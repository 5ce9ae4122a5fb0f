// Who fills a disk has it open too, and maybe its lock, which it gives away when asked:
// it is nobody whom a machine, or its start, has to mind.

package vmdisk

import (
	"context"
	"slices"

	"github.com/vmdisk/vmdisk/disk"
)

// useNow is who uses an image, but for who fills it.
func (h *Host) useNow(ctx context.Context, cluster *disk.Cluster, n disk.Name) (disk.Use, error) {
	use, err := cluster.Use(ctx, n)
	if err != nil || len(use.Addrs()) == 0 {
		return use, err
	}
	by, err := fillers(ctx, cluster, n)
	fills := func(addr string) bool {
		return slices.ContainsFunc(by, func(p disk.Process) bool { return p.Addr == addr })
	}
	use.Watchers = slices.DeleteFunc(use.Watchers, func(w disk.Watcher) bool { return fills(w.Addr) })
	if fills(use.Lock) {
		use.Lock = ""
	}
	return use, err
}

// fillers are the processes that the journal has for filling a disk.
func fillers(ctx context.Context, cluster *disk.Cluster, n disk.Name) (all []disk.Process, err error) {
	open, err := cluster.Operations(ctx, n.Pool)
	if err != nil {
		return nil, gone(err)
	}
	for _, o := range open {
		alive, err := disk.Gone, error(nil)
		if isFilling(o, n) {
			alive, err = cluster.Alive(ctx, &o)
		}
		if err != nil {
			return nil, err
		}
		if alive != disk.Gone {
			all = append(all, o.Holder)
		}
	}
	return all, nil
}

// isFilling says whether an operation is the filling of a disk.
func isFilling(o disk.Operation, n disk.Name) bool {
	return o.Kind == "fill" && slices.Equal(o.Leases, []string{n.String()})
}
