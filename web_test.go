// A web server of files, on loopback, that goes away and comes back.

package vmdisk

import (
	"io"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"
)

type web struct {
	t    testing.TB
	dir  string
	addr string

	mu    sync.Mutex
	srv   *http.Server
	left  int64         // bytes until it goes away; negative: it stays
	delay time.Duration // before each answer
	down  chan struct{}
}

// serve serves a folder until the test ends.
func serve(t testing.TB, dir string) *web {
	w := &web{t: t, dir: dir, addr: "127.0.0.1:0", left: -1}
	w.start()
	t.Cleanup(w.stop)
	return w
}

func (w *web) url(name string) string { return "http://" + w.addr + "/" + name }

// start has it come back, on the port that it had.
func (w *web) start() {
	l, err := net.Listen("tcp", w.addr)
	must(w.t, err)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.addr, w.left, w.down = l.Addr().String(), -1, make(chan struct{})
	w.srv = &http.Server{Handler: w, ReadHeaderTimeout: time.Minute}
	go func(srv *http.Server) { _ = srv.Serve(l) }(w.srv)
}

// stop cuts it off.
func (w *web) stop() {
	w.mu.Lock()
	srv := w.srv
	w.mu.Unlock()
	_ = srv.Close()
}

// stopAfter cuts it off when it has sent so many more bytes; down tells of that.
func (w *web) stopAfter(bytes int64) (down <-chan struct{}) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.left = bytes
	return w.down
}

// slow has each answer take so long.
func (w *web) slow(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.delay = d
}

func (w *web) ServeHTTP(to http.ResponseWriter, r *http.Request) {
	w.mu.Lock()
	delay := w.delay
	w.mu.Unlock()
	time.Sleep(delay)
	http.FileServer(http.Dir(w.dir)).ServeHTTP(&counted{to, w}, r)
}

// counted is an answer whose bytes count.
type counted struct {
	http.ResponseWriter
	w *web
}

func (c *counted) Write(p []byte) (int, error) {
	c.w.mu.Lock()
	if c.w.left >= 0 {
		if c.w.left -= int64(len(p)); c.w.left < 0 {
			select {
			case <-c.w.down:
			default:
				close(c.w.down)
				go c.w.stop()
			}
			c.w.left = 0
			c.w.mu.Unlock()
			return 0, io.ErrClosedPipe
		}
	}
	c.w.mu.Unlock()
	return c.ResponseWriter.Write(p)
}
