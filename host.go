// Host: the one object that an embedder holds.

package vmdisk

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/domain"
	"libvirt.org/go/libvirt"
)

// Config says which host and which cluster. The zero value is the local libvirt
// and the cluster of /etc/ceph/ceph.conf as client.cinder, with the pools that
// OpenStack's services use.
type Config struct {
	Ceph disk.Config

	// URI is the libvirt connection; "" is qemu:///system.
	URI string
	// VirtType is "kvm", "qemu", or "" for kvm where libvirt offers it.
	VirtType string
	// SecretUUID is the UUID of the libvirt secret with the cephx key; "" is one
	// that follows from cluster and user and so is the same on every host.
	SecretUUID string
	// VMPool is the pool for root disks; "" is "vms".
	VMPool string
	// Timeout is how long to wait for libvirtd, or for a guest to let go of a
	// disk or to power off; 0 is 10 s for libvirtd and 60 s for guests. It also
	// is Ceph.Timeout where that is 0.
	Timeout time.Duration
	// Observe is told what happens; nil is nobody. Workflows that run at the same
	// time call it at the same time. It must not block.
	Observe func(Event)
}

const guestTimeout = 60 * time.Second

// Host is one libvirt host and one Ceph cluster, for use by any number of
// goroutines. It holds one connection to each, made when first needed.
type Host struct {
	cfg  Config
	lent bool // the connections are the caller's

	cephMu  sync.Mutex
	cluster *disk.Cluster

	libvirtMu sync.Mutex
	conn      *libvirt.Connect

	secrets secretUse

	// fault makes a step fail for a test.
	fault func(op, step string, when phase) error
}

// Open makes a Host with connections of its own. It does not connect yet: a
// workflow that needs only Ceph works without libvirt, and the other way round.
// The caller closes the Host.
func Open(_ context.Context, cfg Config) (*Host, error) {
	switch cfg.VirtType {
	case "", "kvm", "qemu":
	default:
		return nil, badInput("virtualization type %q is none of kvm, qemu", cfg.VirtType)
	}
	return newHost(cfg), nil
}

// New makes a Host of connections that the caller made and keeps: Close leaves
// them open. Config.Ceph and Config.URI are not used.
func New(cluster *disk.Cluster, conn *libvirt.Connect, cfg Config) *Host {
	h := newHost(cfg)
	h.cluster, h.conn, h.lent = cluster, conn, true
	return h
}

func newHost(cfg Config) *Host {
	if cfg.URI == "" {
		cfg.URI = domain.DefaultURI
	}
	if cfg.VMPool == "" {
		cfg.VMPool = disk.VMPool
	}
	if cfg.Ceph.Timeout == 0 {
		cfg.Ceph.Timeout = cfg.Timeout
	}
	return &Host{cfg: cfg}
}

// Close ends the connections that the Host made. No workflow may be running.
func (h *Host) Close() error {
	if h.lent {
		return nil
	}
	h.cephMu.Lock()
	defer h.cephMu.Unlock()
	h.libvirtMu.Lock()
	defer h.libvirtMu.Unlock()
	if h.cluster != nil {
		h.cluster.Close()
		h.cluster = nil
	}
	return h.disconnect()
}

func (h *Host) disconnect() error {
	if h.conn == nil {
		return nil
	}
	left, err := h.conn.Close()
	h.conn = nil
	if err == nil && left > 0 {
		err = errLeaked
	}
	return err
}

// errLeaked is a mistake of ours: a libvirt handle was not freed.
var errLeaked = errors.New("libvirt connection is still referenced after Close")

// Cluster is the connection to Ceph, made now if there is none yet. It stays the
// Host's.
func (h *Host) Cluster(ctx context.Context) (*disk.Cluster, error) {
	h.cephMu.Lock()
	defer h.cephMu.Unlock()
	if h.cluster != nil {
		return h.cluster, nil
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	c, err := disk.Open(ctx, h.cfg.Ceph)
	if err != nil {
		return nil, err
	}
	h.cluster = c
	return c, nil
}

// Libvirt is the connection to libvirt, made now if there is none yet or the old
// one broke. It stays the Host's.
func (h *Host) Libvirt(ctx context.Context) (*libvirt.Connect, error) {
	h.libvirtMu.Lock()
	defer h.libvirtMu.Unlock()
	if h.conn != nil {
		if alive, err := h.conn.IsAlive(); err == nil && alive || h.lent {
			return h.conn, nil
		}
		_ = h.disconnect() // it broke; what it says of that is of no use
	}
	conn, err := domain.Connect(ctx, h.cfg.URI, h.cfg.Timeout)
	if err != nil {
		return nil, err
	}
	h.conn = conn
	return conn, nil
}

// both are the two connections.
func (h *Host) both(ctx context.Context) (*disk.Cluster, *libvirt.Connect, error) {
	cluster, err := h.Cluster(ctx)
	if err != nil {
		return nil, nil, err
	}
	conn, err := h.Libvirt(ctx)
	return cluster, conn, err
}

// guest bounds a wait for a guest.
func (h *Host) guest(ctx context.Context) (context.Context, context.CancelFunc) {
	limit := h.cfg.Timeout
	if limit == 0 {
		limit = guestTimeout
	}
	return context.WithTimeout(ctx, limit)
}
