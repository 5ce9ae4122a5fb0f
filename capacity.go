// Capacity: how much room a host would report.

package vmdisk

import (
	"context"

	"github.com/vmdisk/vmdisk/disk"
)

// Capacity tells how much room there is in pools, or in all that OpenStack's services
// use if none is named. One that does not exist is [disk.ErrNotFound].
//
// Similar to: ceph df.
func (h *Host) Capacity(ctx context.Context, pools ...string) (disk.Capacity, error) {
	const op, object = "read capacity of", "cluster"
	for _, pool := range pools {
		if err := disk.CheckName("pool", pool); err != nil {
			return disk.Capacity{}, failed(op, object, err)
		}
	}
	cluster, err := h.Cluster(ctx)
	if err != nil {
		return disk.Capacity{}, failed(op, object, err)
	}
	all, err := cluster.Capacity(ctx, pools...)
	return all, failed(op, object, err)
}
