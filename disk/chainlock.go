// One at a time: a lock on a volume's backups, which says who holds it and ends by
// itself if its holder dies.

package disk

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/ceph/go-ceph/rados"
)

const (
	// chainLock, followed by the volume's image name, is the name of a lock on the
	// object with the notes. That is there already: a pool at its quota lets no
	// object be made, not even to remove others.
	chainLock = "vmdisk.chain."

	// lockTime is how long the lock outlives a holder that cannot renew it.
	lockTime  = 30 * time.Second
	lockRenew = 8 * time.Second

	renewLock = byte(1) // LIBRADOS_LOCK_FLAG_MAY_RENEW
)

// lockHolder is who has a lock, as the lock's cookie says it.
type lockHolder struct {
	Doing string    `json:"doing"`
	Host  string    `json:"host"`
	PID   int       `json:"pid"`
	Space string    `json:"space"` // of process IDs: a container has its own
	Since time.Time `json:"since"`
	Key   string    `json:"key"` // tells two of one process apart
}

func (h lockHolder) String() string {
	return fmt.Sprintf("%s by process %d on %s, since %s", h.Doing, h.PID, h.Host, h.Since.Local().Format("15:04:05"))
}

// dead says that the holder was a process of this machine and is no more.
func (h lockHolder) dead(self lockHolder) bool {
	if h.Host != self.Host || h.Space != self.Space || h.Space == "" {
		return false
	}
	_, err := os.Stat(fmt.Sprintf("/proc/%d", h.PID))
	return os.IsNotExist(err)
}

// ChainLock is a lock that is held. It is renewed until Release.
type ChainLock struct {
	io     *rados.IOContext
	name   string
	cookie string
	stop   context.CancelFunc      // of renewing it
	cancel context.CancelCauseFunc // of the work under it
	ended  chan struct{}
}

// LockChain takes the lock on the backups of a volume, for doing what it says
// ("backup 0562…"). If somebody else has it, the error is [ErrInUse] and says who.
// A holder that was killed loses it: at once if it was a process of this machine,
// else after 30 s. The context that it returns ends when the lock is lost; it is
// to be used for all work, and the lock released at its end.
func (c *Cluster) LockChain(ctx context.Context, pool, volume, doing string) (context.Context, *ChainLock, error) {
	io, err := c.openPool(pool)
	if err != nil {
		return nil, nil, err
	}
	self := lockHolder{Doing: doing, PID: os.Getpid(), Since: time.Now().UTC().Truncate(time.Second), Key: rand.Text()}
	self.Host, _ = os.Hostname()
	self.Space, _ = os.Readlink("/proc/self/ns/pid")
	cookie, err := json.Marshal(self)
	if err != nil {
		return nil, nil, err
	}
	l := &ChainLock{io: io, name: chainLock + VolumeName(volume), cookie: string(cookie), ended: make(chan struct{})}
	if err := l.take(self); err != nil {
		io.Destroy()
		return nil, nil, err
	}
	working, cancel := context.WithCancelCause(ctx)
	renewing, stop := context.WithCancel(context.WithoutCancel(ctx))
	l.stop, l.cancel = stop, cancel
	go l.renew(renewing, cancel)
	return working, l, nil
}

func (l *ChainLock) lock(flags byte) (got bool, err error) {
	rc, err := l.io.LockExclusive(backupDirectory, l.name, l.cookie, "", lockTime, &flags)
	return rc == 0, wrap("lock", l.what(), err)
}

func (l *ChainLock) take(self lockHolder) error {
	for range 3 {
		got, err := l.lock(0)
		if got || err != nil {
			return err
		}
		info, err := l.io.ListLockers(backupDirectory, l.name)
		if ignore(err, ErrNotFound) != nil {
			return wrap("read lock of", l.what(), err)
		}
		if err != nil || len(info.Cookies) == 0 {
			continue // it was just released
		}
		var has lockHolder
		if json.Unmarshal([]byte(info.Cookies[0]), &has) != nil || !has.dead(self) {
			return &Error{Op: "lock", Object: l.what(), Kind: ErrInUse,
				Holders: []string{has.String()}}
		}
		if _, err := l.io.BreakLock(backupDirectory, l.name, info.Clients[0], info.Cookies[0]); err != nil {
			return wrap("break lock of", l.what(), err)
		}
	}
	return &Error{Op: "lock", Object: l.what(), Kind: ErrInUse}
}

// renew keeps the lock until it is released, and ends the work if it is lost.
func (l *ChainLock) renew(ctx context.Context, lost context.CancelCauseFunc) {
	defer close(l.ended)
	renewed := time.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(lockRenew):
		}
		begun := time.Now()
		got, err := l.lock(renewLock)
		switch {
		case got:
			renewed = begun
		case err == nil || time.Since(renewed) > lockTime:
			lost(&Error{Op: "renew lock of", Object: l.what(), Kind: ErrTimeout, Err: err,
				Reason: "the lock was lost; somebody else may work on these backups"})
			return
		}
	}
}

func (l *ChainLock) what() string { return "backups of " + strings.TrimPrefix(l.name, chainLock) }

// Release gives the lock back, and leaves nothing of it.
func (l *ChainLock) Release() error {
	l.stop()
	<-l.ended
	l.cancel(nil)
	defer l.io.Destroy()
	// Still ours? Then nobody can take it before it is removed, with its history.
	got, err := l.lock(renewLock)
	if err != nil || !got {
		return err
	}
	return wrap("unlock", l.what(), l.io.RmXattr(backupDirectory, "lock."+l.name))
}
