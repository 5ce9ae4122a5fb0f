// Another cluster than the Host's, into which a disk moves.

package vmdisk

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/secret"
	"libvirt.org/go/libvirt"
)

// cephPlace says how a cluster is reached, for another process on the same host.
type cephPlace struct {
	Conf    string `json:"conf"` // absolute paths
	User    string `json:"user"`
	Keyring string `json:"keyring,omitempty"`
}

// cephPlaceOf is where a configuration leads.
func cephPlaceOf(c disk.Config) (p cephPlace, err error) {
	p = cephPlace{c.Conf, c.User, c.Keyring}
	if p.Conf == "" {
		p.Conf = disk.DefaultConf
	}
	if p.User == "" {
		p.User = "cinder"
	}
	if p.Conf, err = filepath.Abs(p.Conf); err == nil && p.Keyring != "" {
		p.Keyring, err = filepath.Abs(p.Keyring)
	}
	return p, err
}

// far is the same host with another cluster, kept until Close.
func (h *Host) far(ctx context.Context, p cephPlace) (*Host, *disk.Cluster, error) {
	own, err := h.Cluster(ctx)
	if err != nil {
		return nil, nil, err
	}
	h.cephMu.Lock()
	far := h.others[p]
	h.cephMu.Unlock()
	if far != nil {
		cluster, err := far.Cluster(ctx)
		return far, cluster, err
	}
	cfg := h.cfg
	cfg.Ceph = disk.Config{Conf: p.Conf, User: p.User, Keyring: p.Keyring, Timeout: h.cfg.Ceph.Timeout}
	cfg.Wait = false // two that have a cluster each would wait for each other
	far = newHost(cfg)
	cluster, err := far.Cluster(ctx)
	if err != nil {
		return nil, nil, err
	}
	if cluster.FSID() == own.FSID() {
		return nil, nil, errors.Join(badInput("%s leads to the same cluster, %s; name only another pool", p.Conf, own.FSID()), far.Close())
	}
	// The host's secret for a user of this name may be that of the other cluster.
	far.cfg.SecretUUID = secret.UUID(cluster.FSID(), cluster.User())
	far.leastPatience, far.unwritten = h.leastPatience, h.unwritten
	h.cephMu.Lock()
	defer h.cephMu.Unlock()
	if first := h.others[p]; first != nil { // somebody was faster
		err := far.Close()
		cluster, openErr := first.Cluster(ctx)
		return first, cluster, errors.Join(err, openErr)
	}
	if h.others == nil {
		h.others = map[cephPlace]*Host{}
	}
	h.others[p] = far
	return far, cluster, nil
}

// here is where a Host's own cluster is, for one of another.
func (h *Host) here(cluster *disk.Cluster) (cephPlace, error) {
	return cephPlaceOf(disk.Config{Conf: cluster.Conf(), User: cluster.User(), Keyring: h.cfg.Ceph.Keyring})
}

// farSession is a session with another cluster, and with on's host. It ends with on.
func (h *Host) farSession(ctx context.Context, on *session, p cephPlace) (*Host, *session, error) {
	far, cluster, err := h.far(ctx, p)
	if err != nil {
		return nil, nil, err
	}
	if err := on.openHost(ctx, h); err != nil {
		return nil, nil, err
	}
	return far, &session{cluster: cluster, conn: on.conn, host: on.host}, nil
}

// actThere does an action in the cluster that it names.
func (h *Host) actThere(ctx context.Context, on *session, a action) error {
	far, there, err := h.farSession(ctx, on, *a.In)
	if err != nil {
		return err
	}
	a.In = nil
	switch a.Verb {
	case actRemove, actDropMoved:
		// Who wrote it may have died just now; what it had in the journal there fences it.
		if _, err := far.repairLeft(ctx, there, far.cfg.VMPool, a.VM); err != nil {
			return err
		}
		n, err := disk.ParseName(a.Image, "")
		if err == nil {
			err = there.cluster.WaitUnused(ctx, n)
		}
		if gone(err) != nil {
			return err
		}
	case actAbortCopy:
		// QEMU would wait for what it has sent there, and the guest with it.
		if _, err := there.cluster.FullPools(ctx); err != nil {
			return fmt.Errorf("the guest would wait for the other cluster if the copy was aborted now: %w", err)
		}
	}
	if err := far.act(ctx, there, a); err != nil || a.Verb != actPutInImage {
		return err
	}
	return h.onHost(ctx, on, a, func(conn *libvirt.Connect) error {
		was, err := there.cluster.Machine(ctx, far.cfg.VMPool, a.VM)
		if err == nil && was.Host != a.Host { // it was there before this disk, on another host
			err = far.recordHere(ctx, &session{cluster: there.cluster, conn: conn, host: a.Host}, a.VM, was)
		}
		return h.recorded(ctx, on, conn, a, err)
	})
}

// endWork brings to an end what was interrupted on a machine, and is an error if somebody
// else still works on it.
func (h *Host) endWork(ctx context.Context, on *session, vm string) error {
	if _, err := h.repairLeft(ctx, on, h.cfg.VMPool, vm); err != nil {
		return err
	}
	all, err := on.cluster.Operations(ctx, h.cfg.VMPool)
	if err != nil {
		return err
	}
	for _, o := range all {
		if slices.Contains(o.Leases, h.cfg.VMPool+"/"+vm) && !o.Holder.IsSelf() {
			return &disk.HeldError{Operation: o}
		}
	}
	return nil
}

// follow brings a machine's record up to date; that of a machine whose disks are all in
// another cluster goes.
func (h *Host) follow(ctx context.Context, on *session, vm string) error {
	if away, err := isAway(ctx, on, vm); err == nil && away {
		return on.cluster.ForgetMachine(ctx, h.cfg.VMPool, vm)
	}
	return h.keepRecord(ctx, on, vm)
}

// voidThere is in place of an action in another cluster if its host does not answer.
func (h *Host) voidThere(ctx context.Context, a action) error {
	far, cluster, err := h.far(ctx, *a.In)
	if err != nil {
		return err
	}
	a.In = nil
	return far.void(ctx, &session{cluster: cluster}, a)
}

// followVoid is follow for a machine whose host does not answer.
func (h *Host) followVoid(ctx context.Context, cluster *disk.Cluster, vm string) error {
	m, err := cluster.Machine(ctx, h.cfg.VMPool, vm)
	if err != nil {
		return gone(err)
	}
	all, err := recordedDisks(ctx, cluster, m)
	if err == nil && allAbroad(all) {
		err = cluster.ForgetMachine(ctx, h.cfg.VMPool, vm)
	}
	return err
}
