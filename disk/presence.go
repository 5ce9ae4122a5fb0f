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
	work  func() []string
	asked func(notice []byte) // by who has something to say besides
	mu    sync.Mutex
	w     *rados.Watcher
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
	if w.ended() {
		return nil
	}
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
			w.asked(e.Data)
			_ = e.Ack([]byte(strings.Join(w.work(), "\n"))) // who asked sees it or asks again
		case err := <-lost:
			if err == nil {
				return // closed
			}
			w.forget()
			for w.begin() != nil { // the OSD may be away for longer
				select {
				case <-w.stop:
					return
				case <-time.After(time.Second):
				}
			}
			return
		}
	}
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
	w.forget()
	w.done.Wait()
	w.io.Destroy()
}

func (w *watch) ended() bool {
	select {
	case <-w.stop:
		return true
	default:
		return false
	}
}

// forget takes the watch away, if there is one. At worst it expires. What is said until
// then is taken, and not heard: go-ceph closes the channels that it is said on.
func (w *watch) forget() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.w == nil {
		return
	}
	events, lost := w.w.Events(), w.w.Errors()
	for taken := true; taken; {
		select {
		case <-events:
		case err := <-lost:
			_ = err // the watch goes anyway
		default:
			taken = false
		}
	}
	deleted := make(chan struct{})
	go func() {
		for {
			select {
			case <-events:
			case err := <-lost:
				_ = err
			case <-deleted:
				return
			}
		}
	}()
	_ = w.w.Delete()
	close(deleted)
	w.w = nil
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
