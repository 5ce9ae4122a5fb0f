// The record of a machine in Ceph, kept current by every workflow that changes the
// machine.

package vmdisk

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/domain"
)

// keepRecord writes down what a machine of on's host is now; one that the host does
// not define any more is forgotten. A host that the machine was taken from does not
// get it back in this way.
func (h *Host) keepRecord(ctx context.Context, on *session, vm string) error {
	if err := on.openHost(ctx, h); err != nil {
		return err
	}
	was, err := on.cluster.Machine(ctx, h.cfg.VMPool, vm)
	if err != nil && !errors.Is(err, disk.ErrNotFound) {
		return err
	}
	info, err := domain.Find(ctx, on.conn, vm)
	if err == nil && was.UUID == "" {
		if away, err := isAway(ctx, on, vm); err != nil || away {
			return err
		}
	}
	elsewhere := was.Host != "" && was.Host != on.host
	switch {
	case errors.Is(err, domain.ErrNotFound) && was.Host == on.host:
		return on.cluster.ForgetMachine(ctx, h.cfg.VMPool, vm)
	case errors.Is(err, domain.ErrNotFound), err == nil && elsewhere && !info.Running, err == nil && was.LeftBehind(on.host) != nil:
		return nil
	case err != nil:
		return err
	}
	return h.recordHere(ctx, on, vm, was)
}

// recordHere writes down that a machine is on's host, and what it is.
func (h *Host) recordHere(ctx context.Context, on *session, vm string, was disk.Machine) error {
	info, xml, err := domain.Definition(ctx, on.conn, vm)
	if err == nil {
		err = own(ctx, on.cluster, info.Disks)
	}
	if err != nil {
		return err
	}
	m := disk.Machine{UUID: info.UUID, Name: info.Name, Host: on.host, Generation: was.Generation,
		Running: info.Running, Clients: []string{}, Behind: was.Behind, XML: xml}
	if m.URI, err = domain.RemoteAddress(on.conn); err != nil {
		return err
	}
	if was.Host != on.host {
		m.Generation++
	}
	if b := was.LeftBehind(on.host); b != nil { // what runs here is not what was left
		m.Bury(on.host, b.Fenced)
	}
	if m.Clients, err = h.clientsOf(ctx, on, info); err != nil {
		return err
	}
	if !info.Running { // of a QEMU that died its clients are left, for the next start to fence
		m.Clients = slices.DeleteFunc(m.Clients, func(addr string) bool { return !slices.Contains(was.Clients, addr) })
	}
	return on.cluster.SaveMachine(ctx, h.cfg.VMPool, m)
}

// belongsHere refuses to work on a machine whose record says that another host has
// it: what this host has of it is a copy, or a guest that was left behind. One
// without a record is nobody else's, unless its disks are in another cluster.
func (h *Host) belongsHere(ctx context.Context, on *session, vm string) error {
	m, err := on.cluster.Machine(ctx, h.cfg.VMPool, vm)
	if errors.Is(err, disk.ErrNotFound) {
		return h.notAllAbroad(ctx, on, vm)
	}
	if err != nil {
		return err
	}
	if err := on.openHost(ctx, h); err != nil {
		return err
	}
	behind := m.LeftBehind(on.host)
	if m.Host == on.host && behind == nil {
		return nil
	}
	e := &disk.Error{Object: "VM " + m.Name, Kind: disk.ErrInUse, Err: errElsewhere}
	if behind != nil {
		e.Reason = "was taken from " + on.host + " while that did not answer, and its clients there were fenced"
	} else {
		e.Reason = "belongs to " + m.Host
	}
	e.Holders = []string{whereabouts(m)}
	return e
}

// errElsewhere is a machine that belongs to another host.
var errElsewhere = errors.New("the machine is another host's")

// whereabouts is what a record says, for people.
func whereabouts(m disk.Machine) string {
	state := "shut off"
	if m.Running {
		state = "running"
	}
	return fmt.Sprintf("its record says: %s on %s, since %s (generation %d)",
		state, m.Host, m.Updated.Local().Format("2006-01-02 15:04:05"), m.Generation)
}

// clientsOf are the addresses from which a running machine's QEMU has its images
// open. It is asked who watches them: under the machine's lease that is only QEMU.
func (h *Host) clientsOf(ctx context.Context, on *session, info domain.Info) ([]string, error) {
	all := []string{}
	for _, d := range info.Disks {
		if d.Pool == "" {
			continue
		}
		use, err := h.useNow(ctx, on.cluster, disk.Name{Pool: d.Pool, Image: d.Image})
		if err != nil && !errors.Is(err, disk.ErrNotFound) {
			return nil, err
		}
		for _, w := range use.Watchers {
			all = append(all, w.Addr)
		}
	}
	return all, nil
}
