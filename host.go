// Host: the one object that an embedder holds.

package vmdisk

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/domain"
	"github.com/vmdisk/vmdisk/migrate"
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
	// MaxCloneDepth is how many volumes deep a chain of clones may get before a
	// new one is flattened; 0 is 5, as in Cinder, and a negative number makes every
	// volume from a volume a copy of its own.
	MaxCloneDepth int
	// Backup says who writes backups, which is not who has the volumes: by default
	// client.cinder-backup, with Ceph's Conf and Timeout.
	Backup disk.Config
	// BackupPool is the pool for backups; "" is "backups".
	BackupPool string
	// Timeout is how long to wait for libvirtd, or for a guest to let go of a
	// disk or to power off; 0 is 10 s for libvirtd and 60 s for guests. It also
	// is Ceph.Timeout where that is 0.
	Timeout time.Duration
	// Wait makes a workflow wait for another that works on the same machine or
	// volume; otherwise that is [disk.ErrInUse].
	Wait bool
	// Observe is told what happens; nil is nobody. Workflows that run at the same
	// time call it at the same time. It must not block.
	Observe func(Event)
}

const guestTimeout = 60 * time.Second

// Host is one libvirt host and one Ceph cluster, for use by any number of
// goroutines. It holds one connection to Ceph, made when first needed, one more as
// the user of backups, if there are to be any, one to each other cluster that a disk was
// moved to, and as many to libvirt as workflows run at once: two calls at once on one
// connection to libvirt can wait for each other, and before libvirt 10.4 worse
// (CVE-2024-4418).
type Host struct {
	cfg  Config
	lent bool // the connections are the caller's

	cephMu  sync.Mutex
	cluster *disk.Cluster
	store   *disk.Cluster // where backups are, as another user
	others  map[cephPlace]*Host

	libvirtMu sync.Mutex
	idle      []*libvirt.Connect // those that no workflow uses
	loan      chan *libvirt.Connect

	// unwritten switches the journal off for a benchmark.
	unwritten bool
	// leastPatience is [migrate.LeastPatience], or less for a test.
	leastPatience time.Duration
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
// them open. Config.Ceph and Config.URI are not used. With one connection to
// libvirt, its workflows wait for each other.
func New(cluster *disk.Cluster, conn *libvirt.Connect, cfg Config) *Host {
	h := newHost(cfg)
	h.cluster, h.lent = cluster, true
	h.loan = make(chan *libvirt.Connect, 1)
	h.loan <- conn
	return h
}

func newHost(cfg Config) *Host {
	if cfg.URI == "" {
		cfg.URI = domain.DefaultURI
	}
	if cfg.VMPool == "" {
		cfg.VMPool = disk.VMPool
	}
	if cfg.MaxCloneDepth == 0 {
		cfg.MaxCloneDepth = DefaultCloneDepth
	}
	if cfg.Ceph.Timeout == 0 {
		cfg.Ceph.Timeout = cfg.Timeout
	}
	if cfg.Backup.User == "" {
		cfg.Backup.User = "cinder-backup"
	}
	if cfg.Backup.Timeout == 0 {
		cfg.Backup.Timeout = cfg.Ceph.Timeout
	}
	if cfg.BackupPool == "" {
		cfg.BackupPool = disk.BackupPool
	}
	return &Host{cfg: cfg, leastPatience: migrate.LeastPatience}
}

// Close ends the connections that the Host made. No workflow may be running.
func (h *Host) Close() error {
	h.cephMu.Lock()
	defer h.cephMu.Unlock()
	if h.store != nil {
		h.store.Close()
		h.store = nil
	}
	var errs []error
	for _, far := range h.others {
		errs = append(errs, far.Close())
	}
	h.others = nil
	if h.lent {
		return errors.Join(errs...)
	}
	if h.cluster != nil {
		h.cluster.Close()
		h.cluster = nil
	}
	h.libvirtMu.Lock()
	defer h.libvirtMu.Unlock()
	for _, conn := range h.idle {
		left, err := domain.Close(context.Background(), conn)
		if err == nil && left > 0 {
			err = errLeaked
		}
		errs = append(errs, err)
	}
	h.idle = nil
	return errors.Join(errs...)
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

// backups is the connection to Ceph as the user who writes backups, made now if
// there is none yet.
func (h *Host) backups(ctx context.Context) (*disk.Cluster, error) {
	volumes, err := h.Cluster(ctx)
	if err != nil {
		return nil, err
	}
	h.cephMu.Lock()
	defer h.cephMu.Unlock()
	if h.store != nil {
		return h.store, nil
	}
	cfg := h.cfg.Backup
	if cfg.Conf == "" {
		cfg.Conf = volumes.Conf()
	}
	c, err := disk.Open(ctx, cfg)
	if err == nil {
		if err = volumes.Accompany(c); err != nil {
			c.Close()
		}
	}
	if err != nil {
		return nil, err
	}
	h.store = c
	return c, nil
}

// borrow is a connection to libvirt that nobody else uses until it is given back.
func (h *Host) borrow(ctx context.Context) (conn *libvirt.Connect, giveBack func(), err error) {
	if h.lent {
		select {
		case conn = <-h.loan:
			return conn, func() { h.loan <- conn }, nil
		case <-ctx.Done():
			return nil, nil, ctx.Err()
		}
	}
	if conn, err = h.popIdle(ctx); err != nil {
		return nil, nil, err
	}
	if conn == nil {
		if conn, err = domain.Connect(ctx, h.cfg.URI, h.cfg.Timeout); err != nil {
			return nil, nil, err
		}
	}
	return conn, func() {
		if domain.Lost(conn) {
			return
		}
		h.libvirtMu.Lock()
		defer h.libvirtMu.Unlock()
		h.idle = append(h.idle, conn)
	}, nil
}

// Name is what the host calls itself.
//
// Similar to: virsh hostname.
func (h *Host) Name(ctx context.Context) (string, error) {
	conn, giveBack, err := h.borrow(ctx)
	if err != nil {
		return "", failed("ask", h.cfg.URI, err)
	}
	defer giveBack()
	return domain.Hostname(ctx, conn)
}

// popIdle is an idle connection that still works, or nil. Only an answer shows that: a
// connection does not know that its libvirtd was started again.
func (h *Host) popIdle(ctx context.Context) (*libvirt.Connect, error) {
	for {
		h.libvirtMu.Lock()
		if len(h.idle) == 0 {
			h.libvirtMu.Unlock()
			return nil, nil
		}
		conn := h.idle[len(h.idle)-1]
		h.idle = h.idle[:len(h.idle)-1]
		h.libvirtMu.Unlock()
		_, err := domain.Hostname(ctx, conn)
		switch {
		case err == nil:
			return conn, nil
		case domain.Lost(conn):
			return nil, err
		}
		_, _ = conn.Close() // it broke; what it says of that is of no use
	}
}

// session is what a workflow works with: the Ceph connection, which all share,
// and a libvirt connection of its own.
type session struct {
	cluster  *disk.Cluster
	conn     *libvirt.Connect
	host     string // the name of the connection's host
	giveBack func()
}

func (s *session) open(ctx context.Context, h *Host) (err error) {
	if s.cluster, err = h.Cluster(ctx); err != nil {
		return err
	}
	return s.openHost(ctx, h)
}

// openHost borrows the libvirt connection, unless there is one.
func (s *session) openHost(ctx context.Context, h *Host) (err error) {
	if s.conn != nil {
		return nil
	}
	if s.conn, s.giveBack, err = h.borrow(ctx); err != nil {
		return err
	}
	s.host, err = domain.Hostname(ctx, s.conn)
	return err
}

// find opens the session and finds a machine. What was interrupted on it is brought
// to an end first.
func (s *session) find(ctx context.Context, h *Host, vm string) (domain.Info, error) {
	if err := s.open(ctx, h); err != nil {
		return domain.Info{}, err
	}
	if _, err := h.repairLeft(ctx, s, h.cfg.VMPool, vm); err != nil {
		return domain.Info{}, err
	}
	return findOwn(ctx, s.cluster, s.conn, vm)
}

// end gives the libvirt connection back, if there is one.
func (s *session) end() {
	if s.giveBack != nil {
		s.giveBack()
		s.conn, s.giveBack = nil, nil
	}
}

// guest bounds a wait for a guest.
func (h *Host) guest(ctx context.Context) (context.Context, context.CancelFunc) {
	limit := h.cfg.Timeout
	if limit == 0 {
		limit = guestTimeout
	}
	return context.WithTimeout(ctx, limit)
}

// patience is how long a migration may stand still.
func (h *Host) patience() time.Duration { return max(h.cfg.Timeout, h.leastPatience) }
