// Presence: by a watch on the journal of a pool a process shows that it lives. The
// cluster forgets the watch 30 s after the process, however it ended.

package disk

import (
	"context"
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

// presence is this process's watches, one a pool.
type presence struct {
	mu    sync.Mutex
	pools map[string]*watch
}

// watch is a watch and what it needs.
type watch struct {
	io   *rados.IOContext
	mu   sync.Mutex
	w    *rados.Watcher
	stop chan struct{}
	done sync.WaitGroup
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
	w := &watch{io: io, stop: make(chan struct{})}
	if err := w.begin(); err != nil {
		io.Destroy()
		return c.explainCaps(pool, wrap("watch journal of", "pool "+pool, err))
	}
	if c.presence.pools == nil {
		c.presence.pools = map[string]*watch{}
	}
	c.presence.pools[pool] = w
	return nil
}

// begin watches, and answers whoever asks. A watch that is lost is made again; if
// that was too late, the next change to the journal will say so.
func (w *watch) begin() (err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.w, err = w.io.Watch(journalObject); err != nil {
		return err
	}
	events, lost := w.w.Events(), w.w.Errors()
	w.done.Go(func() { w.serve(events, lost) })
	return nil
}

func (w *watch) serve(events <-chan rados.NotifyEvent, lost <-chan error) {
	for {
		select {
		case <-w.stop:
			return
		case e, ok := <-events:
			if !ok {
				return
			}
			_ = e.Ack(nil) // who asked sees it or asks again
		case err := <-lost:
			if err == nil {
				return // closed
			}
			w.mu.Lock()
			_ = w.w.Delete() // it is lost already
			w.mu.Unlock()
			select {
			case <-w.stop:
			default:
				_ = w.begin()
			}
			return
		}
	}
}

// end takes this process's watches away.
func (p *presence) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, w := range p.pools {
		close(w.stop)
		w.mu.Lock()
		_ = w.w.Delete() // at worst it expires
		w.mu.Unlock()
		w.done.Wait()
		w.io.Destroy()
	}
	p.pools = nil
}

// Clients asks the journal of a pool who is there. A client that it does not name
// is [Gone]. It blocks for two seconds if somebody does not answer.
func (c *Cluster) Clients(ctx context.Context, pool string) (map[uint64]Presence, error) {
	found := map[uint64]Presence{}
	err := c.pool(ctx, pool, func(io *rados.IOContext) error {
		acks, silent, err := io.NotifyWithTimeout(journalObject, nil, answerTime)
		for _, a := range acks {
			found[uint64(a.NotifierID)] = Present
		}
		for _, s := range silent {
			if id := uint64(s.NotifierID); found[id] == Gone {
				found[id] = Silent
			}
		}
		if is(err, ErrNotFound) || is(err, ErrTimeout) { // no journal yet; a silent one
			return nil
		}
		return wrap("ask journal of", "pool "+pool, err)
	})
	return found, err
}
