// Clearing the way for a start: what a QEMU that died has left of itself would make
// the next one wait, or fail in the middle of its boot.

package vmdisk

import (
	"context"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/domain"
)

// clearStep makes sure that nobody has the disks of a machine that is off open. Its
// own QEMU of before, if it is gone without a word, is fenced and its lock broken.
// Anybody else is waited for as long as the watch of a dead client lasts, and then
// is [disk.ErrInUse], named.
func (h *Host) clearStep(on *session, info domain.Info) step {
	var fenced []string
	return step{
		name:   "clear",
		detail: func() string { return count(len(fenced), "dead client") + " of " + info.Name },
		do: func(ctx context.Context) (err error) {
			fenced, err = h.clear(ctx, on, info)
			return err
		},
	}
}

func (h *Host) clear(ctx context.Context, on *session, info domain.Info) (fenced []string, err error) {
	m, err := on.cluster.Machine(ctx, h.cfg.VMPool, info.UUID)
	if gone(err) != nil {
		return nil, err
	}
	for _, d := range info.Disks {
		if d.Pool == "" {
			continue
		}
		n := disk.Name{Pool: d.Pool, Image: d.Image}
		if now, err := h.fillingOf(ctx, on.cluster, n); err == nil && now != nil {
			if err := h.originHere(on, now.Origin); err != nil {
				return fenced, err
			}
			if err := on.cluster.SameOrigin(ctx, n); err != nil {
				return fenced, err
			}
		}
		use, err := h.useNow(ctx, on.cluster, n)
		if err != nil {
			return fenced, err
		}
		dead := deadClients(m, use)
		if len(use.Addrs()) == 0 {
			continue
		}
		if err := h.livesOn(on.host, info); err != nil {
			return fenced, err
		}
		fenced = append(fenced, dead...)
		if err := h.expel(ctx, on, n, dead); err != nil {
			return fenced, err
		}
	}
	return fenced, nil
}

// deadClients are the clients of an image that are those of the machine's QEMU of
// before, and a lock's owner who does not even watch any more.
func deadClients(m disk.Machine, use disk.Use) []string {
	var dead []string
	for _, addr := range use.Addrs() {
		watches := slices.ContainsFunc(use.Watchers, func(w disk.Watcher) bool { return w.Addr == addr })
		if !watches || slices.Contains(m.Clients, addr) {
			dead = append(dead, addr)
		}
	}
	return dead
}

// livesOn refuses a machine that is off for libvirt and whose QEMU lives.
func (h *Host) livesOn(host string, info domain.Info) error {
	for _, p := range domain.Processes(info.UUID) {
		if sameHost(p.Host, host) {
			return &disk.Error{Object: "VM " + info.Name, Kind: disk.ErrInUse, Reason: "has a QEMU that libvirt does not know of",
				Holders: []string{fmt.Sprintf("pid %d on %s", p.PID, p.Host)}}
		}
	}
	return nil
}

// fenceAll fences clients and proves that they are.
func fenceAll(ctx context.Context, cluster *disk.Cluster, addrs []string, keep time.Duration) error {
	for _, addr := range addrs {
		if cluster.IsSelf(addr) {
			continue
		}
		if err := cluster.Fence(ctx, addr, keep); err != nil {
			return err
		}
	}
	fences, err := cluster.Fences(ctx)
	if err != nil {
		return err
	}
	for _, addr := range addrs {
		if !isFenced(fences, addr) && !cluster.IsSelf(addr) {
			return &disk.Error{Op: "fence", Object: addr, Kind: disk.ErrInUse, Reason: "it is not in the monitors' blocklist"}
		}
	}
	return nil
}

func isFenced(fences []disk.Fenced, addr string) bool {
	return slices.ContainsFunc(fences, func(f disk.Fenced) bool { return f.Addr == addr })
}

// expel fences clients, breaks their lock and waits until nobody is left. Those whose
// process is proven dead, because it was this computer's, need no fence for longer
// than what they had under way can take.
func (h *Host) expel(ctx context.Context, on *session, n disk.Name, dead []string) error {
	keep := disk.FenceTime
	if own, err := os.Hostname(); err == nil && sameHost(own, on.host) {
		keep = time.Hour
	}
	if err := fenceAll(ctx, on.cluster, dead, keep); err != nil {
		return err
	}
	for _, addr := range dead {
		if err := on.cluster.BreakLock(ctx, n, addr); err != nil {
			return err
		}
	}
	return on.cluster.WaitUnused(ctx, n)
}
