// The clients of an image: who may be writing to it, and how they are kept from it.

package disk

import (
	"context"
	"slices"
	"strings"
	"syscall"

	"github.com/ceph/go-ceph/rados"
)

// Use is who has an image open for writing and who owns its exclusive lock, as far
// as the cluster knows.
type Use struct {
	Watchers []Watcher `json:"watchers"`
	// Lock is the address of the lock's owner, "" if nobody has it. An owner that is
	// frozen or dead keeps the lock after its watch has expired.
	Lock string `json:"lock"`
}

// Addrs are the addresses of all of them.
func (u Use) Addrs() []string {
	all := []string{}
	for _, w := range u.Watchers {
		all = append(all, w.Addr)
	}
	if u.Lock != "" && !slices.Contains(all, u.Lock) {
		all = append(all, u.Lock)
	}
	return all
}

// Use asks who uses an image.
//
// Similar to: rbd status and rbd lock ls.
func (c *Cluster) Use(ctx context.Context, n Name) (Use, error) {
	u := Use{Watchers: []Watcher{}}
	err := c.pool(ctx, n.Pool, func(io *rados.IOContext) error {
		id, err := imageID(io, n)
		if err != nil {
			return translate("open", n.String(), err)
		}
		_, by, err := ask(io, "rbd_header."+id, nil)
		if err != nil {
			return wrap("list watchers of", n.String(), err)
		}
		u.Watchers = append(u.Watchers, by...)
		u.Lock, err = lockOwner(io, n, id)
		return err
	})
	return u, err
}

// Where librbd keeps its own lock, and how it is told from `rbd lock add`. Source:
// RBD_LOCK_NAME in Ceph's rbd_types.h, WATCHER_LOCK_TAG in librbd's ManagedLock.
const (
	lockName = "rbd_lock"
	lockTag  = "internal"
)

// lockOwner is the address of who owns the exclusive lock, or "". librbd tells it
// only to who has opened the image for writing, and watches it.
func lockOwner(io *rados.IOContext, n Name, id string) (string, error) {
	info, err := lockers(io, n, id)
	if err != nil || info.NumLockers == 0 {
		return "", err
	}
	return bareAddr(info.Addrs[0]), nil
}

func lockers(io *rados.IOContext, n Name, id string) (*rados.LockInfo, error) {
	info, err := io.ListLockers("rbd_header."+id, lockName)
	if err != nil {
		return nil, wrap("read lock of", n.String(), err)
	}
	if info.Tag != lockTag {
		info.NumLockers = 0
	}
	return info, nil
}

// LockError is a lock that was taken by hand, with rbd lock add, and that librbd
// never takes from anybody.
type LockError struct {
	Image  Name
	ID     string // as it was named
	Client string // client.4123, which has long gone
}

// Error is its description.
func (e *LockError) Error() string { return "lock " + e.ID + " of " + e.Client }

// notByHand is [ErrInUse] if an image is locked by hand: a removal would ask for the
// lock until the end of time, and anything else would be told of a read-only file system.
func (c *Cluster) notByHand(ctx context.Context, op string, n Name) error {
	return c.pool(ctx, n.Pool, func(io *rados.IOContext) error {
		id, err := imageID(io, n)
		if err != nil {
			return err
		}
		info, err := io.ListLockers("rbd_header."+id, lockName)
		if err != nil || info.NumLockers == 0 || info.Tag == lockTag {
			return wrap("read lock of", n.String(), err)
		}
		by := &LockError{Image: Name{Pool: n.Pool, Image: n.Image}, ID: info.Cookies[0], Client: info.Clients[0]}
		return &Error{Op: op, Object: n.String(), Kind: ErrInUse, Err: by, Reason: "somebody locked it by hand, with rbd lock add",
			Holders: []string{by.Error() + " from " + bareAddr(info.Addrs[0])}}
	})
}

// bareAddr is an address without the messenger's version, as watchers and
// blocklist have it.
func bareAddr(addr string) string {
	if version, rest, ok := strings.Cut(addr, ":"); ok && (version == "v1" || version == "v2" || version == "any") {
		return rest
	}
	return addr
}

// BreakLock takes the exclusive lock of an image from a client, which must have been
// fenced before: it is not asked. A lock that it does not have any more is fine.
// librbd's own way would fence the client anew, and for an hour only; told to for
// longer, that of Ceph 16 fails, because the monitor does not understand it.
//
// Similar to: rbd lock rm.
func (c *Cluster) BreakLock(ctx context.Context, n Name, addr string) error {
	return c.pool(ctx, n.Pool, func(io *rados.IOContext) error {
		id, err := imageID(io, n)
		if err != nil {
			return err
		}
		info, err := lockers(io, n, id)
		if err != nil || info.NumLockers == 0 || bareAddr(info.Addrs[0]) != addr {
			return err
		}
		code, err := io.BreakLock("rbd_header."+id, lockName, info.Clients[0], info.Cookies[0])
		if err == nil && code < 0 {
			err = syscall.Errno(-code)
		}
		return wrap("break lock of", n.String(), ignore(err, ErrNotFound))
	})
}

// Addr is the address of this connection, as watchers and the blocklist have it.
func (c *Cluster) Addr() (string, error) {
	own, err := c.conn.GetAddrs()
	return bareAddr(own), wrap("read address of", "this client", err)
}

// IsSelf says whether an address is that of this connection.
func (c *Cluster) IsSelf(addr string) bool {
	own, err := c.conn.GetAddrs()
	return err == nil && bareAddr(own) == bareAddr(addr)
}
