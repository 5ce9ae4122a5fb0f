// Presence: by a watch on the journal of a pool a process shows that it lives. The
// cluster forgets the watch 30 s after the process, however it ended.

package disk

import (
	"context"
	"strings"
	"sync"
	"time"

	"github.com/ceph/go-ceph/rados"
)

// answerTime is how long a process may take to say that it is there. The OSD
// counts in whole seconds.
const answerTime = 2 * time.Second

// Presence is what is known of a client of the journal.
type Presence int

// A client that is not known to the cluster any more is Gone. One that does not
// answer but whose watch has not expired is Silent: it is frozen, cut off, or died
// less than 30 s ago.
const (
	Gone Presence = iota
	Silent
	Present
)

// member is a client that watches the journal, and the operations that it works on.
// One that is not in here of those which it holds, it has given up.
type member struct {
	presence Presence
	work     []string // IDs
}

// presence is this process's watches, one a pool.
type presence struct {
	mu    sync.Mutex
	pools map[string]*watch
}

// watch is a watch and what it needs.
type watch struct {
	io    *rados.IOContext
	on    *observer // nil while it is lost
	work  func() []string
	asked func(notice []byte) // by who has something to say besides
	stop  chan struct{}
	done  sync.WaitGroup
}

// show makes this process present in a pool until the Cluster is closed.
func (c *Cluster) show(pool string) error {
	c.presence.mu.Lock()
	defer c.presence.mu.Unlock()
	if c.presence.pools[pool] != nil {
		return nil
	}
	io, err := c.openPool(pool)
	if err != nil {
		return err
	}
	if _, err := (omapChange{}).apply(io, journalObject); err != nil { // it must exist to be watched
		io.Destroy()
		return c.explainCaps(pool, wrap("write journal of", "pool "+pool, err))
	}
	w := &watch{io: io, work: c.worksOn, asked: c.asked, stop: make(chan struct{})}
	if w.on, err = observe(io, journalObject); err != nil {
		io.Destroy()
		return c.explainCaps(pool, wrap("watch journal of", "pool "+pool, err))
	}
	w.done.Go(w.serve)
	if c.presence.pools == nil {
		c.presence.pools = map[string]*watch{}
	}
	c.presence.pools[pool] = w
	return nil
}

// serve answers whoever asks. A watch that is lost is made again; if that was too late,
// the next change to the journal will say so.
func (w *watch) serve() {
	for w.again() {
		select {
		case <-w.stop:
			w.on.end()
			return
		case <-w.on.bell:
		}
		said, lost := w.on.take()
		for _, n := range said {
			w.asked(n.text)
			w.on.answer(n, strings.Join(w.work(), "\n"))
		}
		if lost {
			w.on.end()
			w.on = nil
		}
	}
}

// again watches again if the watch is lost, until it does or is not wanted any more: the
// OSD may be away for longer.
func (w *watch) again() bool {
	for w.on == nil {
		var err error
		if w.on, err = observe(w.io, journalObject); err == nil {
			break
		}
		select {
		case <-w.stop:
			return false
		case <-time.After(time.Second):
		}
	}
	return true
}

// end takes this process's watches away, all at once: each may wait for an OSD.
func (p *presence) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	var all sync.WaitGroup
	for _, w := range p.pools {
		all.Go(w.end)
	}
	all.Wait()
	p.pools = nil
}

func (w *watch) end() {
	close(w.stop)
	w.done.Wait()
	w.io.Destroy()
}

// members asks the journal of a pool who is there, by client. One that it does not
// name is [Gone]. It blocks for two seconds if somebody does not answer.
func (c *Cluster) members(ctx context.Context, pool string) (map[uint64]member, error) {
	return c.notify(ctx, pool, nil)
}

// notify is members, and tells them something.
func (c *Cluster) notify(ctx context.Context, pool string, notice []byte) (map[uint64]member, error) {
	found := map[uint64]member{}
	err := c.pool(ctx, pool, func(io *rados.IOContext) error {
		acks, silent, err := io.NotifyWithTimeout(journalObject, notice, answerTime)
		for _, a := range acks {
			m := found[uint64(a.NotifierID)] // a watch that was lost and made again may be there twice
			found[uint64(a.NotifierID)] = member{Present, append(m.work, strings.Split(string(a.Response), "\n")...)}
		}
		for _, s := range silent {
			if id := uint64(s.NotifierID); found[id].presence == Gone {
				found[id] = member{presence: Silent}
			}
		}
		if is(err, ErrNotFound) || is(err, ErrTimeout) { // no journal yet; a silent one
			return nil
		}
		return wrap("ask journal of", "pool "+pool, err)
	})
	return found, err
}
