// What stands in the way of moving a machine's disks.

package vmdisk

import (
	"context"

	"github.com/vmdisk/vmdisk/domain"
)

// unhindered refuses a machine of which libvirt has something that leads to its files,
// or works on them.
func (h *Host) unhindered(ctx context.Context, on session, vm domain.Info) error {
	if err := refuseRescued(vm); err != nil {
		return err
	}
	kept, err := domain.Persistent(ctx, on.conn, vm.UUID)
	if err != nil {
		return err
	}
	if !kept {
		return &domain.Error{Object: "VM " + vm.Name, Kind: domain.ErrInvalid, Reason: "is transient: its host forgets it when it is off; virsh define it first"}
	}
	all, err := domain.Hindrances(ctx, on.conn, vm)
	if err != nil || len(all) == 0 {
		return err
	}
	return &domain.Error{Object: "VM " + vm.Name, Kind: domain.ErrInvalid, Err: &hindered{all[0].Cure}, Reason: all[0].What}
}

// hindered is what must be done first.
type hindered struct{ cure string }

func (h *hindered) Error() string { return h.cure }
