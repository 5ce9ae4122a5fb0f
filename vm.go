// What there is: the machines of a host, and one of them.

package vmdisk

import (
	"context"
	"slices"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/domain"
	"libvirt.org/go/libvirt"
)

// VM is a machine of the host.
type VM struct {
	Name  string `json:"name"`
	UUID  string `json:"uuid"`
	State string `json:"state"` // as virsh says it: "running", "shut off"
	Host  string `json:"host"`
	// Elsewhere is the host that the machine belongs to, if that is not this one.
	Elsewhere string   `json:"elsewhere,omitempty"`
	Disks     []VMDisk `json:"disks"`
	// Resize is one that is pending, see [Host.ResizeRevertible]; only [Host.VM] and
	// what resizes look for it.
	Resize *PendingResize `json:"pending_resize,omitempty"`
	// Filling is how far the root disk is, if that is being filled; it is told where
	// Resize is.
	Filling *disk.Filling `json:"filling,omitempty"`
}

// VMDisk is a disk of a machine. Pool and Image are "" for one that is not in
// Ceph; Size is then 0, as it is while Ceph does not answer.
type VMDisk struct {
	Target string `json:"target"`
	Pool   string `json:"pool"`
	Image  string `json:"image"`
	Size   int64  `json:"size"` // bytes
	Cache  string `json:"cache"`
	// Role is what the disk is to the machine: "root", "swap", "ephemeral",
	// "config", "rescue" or "volume"; "" for one that is not in Ceph.
	Role string `json:"role"`
	// Source is what a disk that is not in Ceph is, or not in this cluster.
	Source string `json:"source,omitempty"`

	QoS *domain.QoS `json:"qos,omitempty"` // nil is no limits
}

// VMs lists the machines of the host by name.
//
// Similar to: virsh list --all, with the disks and their sizes.
func (h *Host) VMs(ctx context.Context) ([]VM, error) {
	// Both connections at once; Ceph's is given up if no machine needs it.
	early, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() { _, _ = h.Cluster(early) }() // whoever needs it is told what fails
	conn, giveBack, err := h.borrow(ctx)
	if err != nil {
		return nil, failed("list", "VMs", err)
	}
	defer giveBack()
	infos, err := domain.List(ctx, conn)
	if err != nil {
		return nil, failed("list", "VMs", err)
	}
	if !slices.ContainsFunc(infos, inCeph) {
		vms, err := h.describe(ctx, conn, infos)
		return vms, failed("list", "VMs", err)
	}
	records := h.records(ctx)
	vms, err := h.describe(ctx, conn, infos)
	h.elsewhere(records, vms)
	return vms, failed("list", "VMs", err)
}

// VM describes the machine with a name or UUID; [domain.ErrNotFound] if there is
// none on this host.
//
// Similar to: virsh dominfo and domblklist.
func (h *Host) VM(ctx context.Context, vm string) (VM, error) {
	conn, giveBack, err := h.borrow(ctx)
	if err != nil {
		return VM{}, failed("inspect", vm, err)
	}
	defer giveBack()
	v, err := h.inspect(ctx, conn, vm)
	if err == nil {
		err = failed("inspect", vm, h.addPending(ctx, &v))
	}
	return v, err
}

// outcome describes the machine that a workflow ended with. The workflow is over:
// a cancellation that came too late for it must not hide what came of it.
func (h *Host) outcome(ctx context.Context, conn *libvirt.Connect, vm string) (VM, error) {
	return h.inspect(context.WithoutCancel(ctx), conn, vm)
}

func (h *Host) inspect(ctx context.Context, conn *libvirt.Connect, vm string) (VM, error) {
	info, err := domain.Find(ctx, conn, vm)
	if err != nil {
		return VM{}, failed("inspect", vm, err)
	}
	vms, err := h.describe(ctx, conn, []domain.Info{info})
	if err != nil {
		return VM{}, failed("inspect", vm, err)
	}
	return vms[0], nil
}

// describe adds the disks' sizes. If Ceph cannot be asked for them, the machines
// are still told of, with sizes of 0 and a warning.
func (h *Host) describe(ctx context.Context, conn *libvirt.Connect, infos []domain.Info) ([]VM, error) {
	hostname, err := domain.Hostname(ctx, conn)
	if err != nil {
		return nil, err
	}
	sizes, err := h.sizes(ctx, infos)
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if err != nil {
		h.emit(Event{Kind: Warning, Op: "inspect", Object: hostname, Detail: "sizes of disks are not known: " + err.Error(), Err: err})
	}
	vms := []VM{}
	for _, info := range infos {
		vms = append(vms, describeVM(info, hostname, sizes))
	}
	return vms, nil
}

func describeVM(info domain.Info, hostname string, sizes map[disk.Name]int64) VM {
	vm := VM{Name: info.Name, UUID: info.UUID, State: info.State, Host: hostname, Disks: []VMDisk{}}
	for _, d := range info.Disks {
		own := VMDisk{
			Target: d.Target, Pool: d.Pool, Image: d.Image, Cache: d.Cache, Source: d.Source, QoS: limits(d.QoS),
			Size: sizes[disk.Name{Pool: d.Pool, Image: d.Image}],
		}
		if d.Pool != "" {
			own.Role = disk.Role(info.UUID, d.Image)
		}
		vm.Disks = append(vm.Disks, own)
	}
	return vm
}

// sizes asks for the sizes of machines' disks, of which it first sorts out those that are
// in another cluster.
func (h *Host) sizes(ctx context.Context, infos []domain.Info) (map[disk.Name]int64, error) {
	if !slices.ContainsFunc(infos, inCeph) {
		return nil, nil
	}
	cluster, err := h.Cluster(ctx)
	if err != nil {
		return nil, err
	}
	var names []disk.Name
	for _, info := range infos {
		if err := own(ctx, cluster, info.Disks); err != nil {
			return nil, err
		}
		names = append(names, imagesNow(info)...)
	}
	return cluster.Sizes(ctx, names)
}
