// Machines that are defined here and belong to another host.

package vmdisk

import (
	"context"
	"fmt"
	"slices"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/domain"
)

// elsewhere says of machines of this host that they belong to another, by one read
// of all records.
func (h *Host) elsewhere(records func() ([]disk.Machine, error), vms []VM) {
	all, err := records()
	if err != nil {
		return // that Ceph does not answer is told of the sizes
	}
	hosts := make(map[string]string, len(all))
	for _, m := range all {
		hosts[m.UUID] = m.Host
	}
	for i := range vms {
		vm := &vms[i]
		host := hosts[vm.UUID]
		if host == "" || host == vm.Host {
			continue
		}
		if vm.Elsewhere = host; vm.State != "shut off" {
			h.emit(Event{Kind: Warning, Op: "inspect", Object: vm.Name,
				Detail: fmt.Sprintf("%s is %s here and belongs to %s; see: vmdisk why %s", vm.Name, vm.State, host, vm.Name)})
		}
	}
}

// inCeph says that a machine has a disk there.
func inCeph(info domain.Info) bool {
	return slices.ContainsFunc(info.Disks, func(d domain.DiskInfo) bool { return d.Pool != "" })
}

// records reads what is known of machines while something else is done.
func (h *Host) records(ctx context.Context) func() ([]disk.Machine, error) {
	type result struct {
		all []disk.Machine
		err error
	}
	done := make(chan result, 1)
	go func() {
		cluster, err := h.Cluster(ctx)
		if err != nil {
			done <- result{nil, err}
			return
		}
		all, err := cluster.Machines(ctx, h.cfg.VMPool)
		done <- result{all, err}
	}()
	return func() ([]disk.Machine, error) {
		r := <-done
		return r.all, r.err
	}
}
