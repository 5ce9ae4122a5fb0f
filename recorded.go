// What is done to a machine from its record alone, because its host cannot be asked.

package vmdisk

import (
	"context"
	"errors"
	"slices"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/domain"
	"libvirt.org/go/libvirt"
)

// imagesOf are the images of a machine: those that its definition names and those
// that carry its UUID.
func (h *Host) imagesOf(ctx context.Context, cluster *disk.Cluster, m disk.Machine) ([]disk.Name, error) {
	all, err := cluster.MachineImages(ctx, h.cfg.VMPool, m.UUID)
	if err != nil {
		return nil, err
	}
	named, err := recordedDisks(ctx, cluster, m)
	for _, d := range named {
		n := disk.Name{Pool: d.Pool, Image: d.Image}
		if d.Pool != "" && !slices.Contains(all, n) {
			all = append(all, n)
		}
	}
	return all, err
}

// ownImages are those of a machine's images that carry its UUID and are there, be it in
// another pool.
func (h *Host) ownImages(ctx context.Context, cluster *disk.Cluster, vm string) ([]disk.Name, error) {
	m, err := cluster.Machine(ctx, h.cfg.VMPool, vm)
	if gone(err) != nil {
		return nil, err
	}
	m.UUID = vm
	all, err := h.imagesOf(ctx, cluster, m)
	if err != nil {
		return nil, err
	}
	var own []disk.Name
	for _, n := range all {
		if !disk.Owned(vm, n.Image) {
			continue
		}
		switch _, err := cluster.Size(ctx, n); {
		case err == nil:
			own = append(own, n)
		case gone(err) != nil:
			return nil, err
		}
	}
	return own, nil
}

// take makes a machine the host's of an action, from the host that it names.
func (h *Host) take(ctx context.Context, on *session, a action) error {
	m, err := on.cluster.Machine(ctx, h.cfg.VMPool, a.VM)
	if err != nil || m.Host == a.Host || m.Host != a.To {
		return err // it is taken, or somebody has moved it on
	}
	m.Host, m.URI, m.Running, m.Clients = a.Host, "", false, []string{}
	m.Generation++
	if b := m.LeftBehind(a.Host); b != nil { // it comes back to where it was taken from
		m.Bury(a.Host, b.Fenced)
	}
	return on.cluster.SaveMachine(ctx, h.cfg.VMPool, m)
}

// wherever is an action on a machine where that is now: it may have been moved on.
func (h *Host) wherever(ctx context.Context, on *session, a action) (action, error) {
	m, err := on.cluster.Machine(ctx, h.cfg.VMPool, a.VM)
	if err == nil && m.Host != a.Host {
		a.Host, a.URI = m.Host, m.URI
	}
	return a, gone(err)
}

// defineRecorded defines a machine from its record, for the monitors and the secret
// of here and now. One that is defined here is brought up to date.
func (h *Host) defineRecorded(ctx context.Context, on *session, conn *libvirt.Connect, a action) error {
	m, err := on.cluster.Machine(ctx, h.cfg.VMPool, a.VM)
	if err != nil || m.Host != a.Host {
		return gone(err)
	}
	s, _, err := h.ensureSecret(ctx, on.cluster, conn)
	if err != nil {
		return err
	}
	monitors, err := on.cluster.Monitors(ctx)
	if err != nil {
		return err
	}
	rewrite := func(xml string) (string, bool, error) {
		return domain.Rewrite(xml, monitors, on.cluster.Conf(), s.UUID)
	}
	err = domain.Redefine(ctx, conn, m.UUID, rewrite)
	if !errors.Is(err, domain.ErrNotFound) {
		return err
	}
	xml, _, err := rewrite(m.XML)
	if err != nil {
		return err
	}
	return domain.Define(ctx, conn, m.Name, m.UUID, xml)
}

// startRecorded starts a machine that was evacuated, if it is still here.
func (h *Host) startRecorded(ctx context.Context, on *session, conn *libvirt.Connect, a action) error {
	m, err := on.cluster.Machine(ctx, h.cfg.VMPool, a.VM)
	if err != nil || m.Host != a.Host {
		return gone(err)
	}
	return domain.Start(ctx, conn, a.VM)
}
