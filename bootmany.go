// Many machines booted at once.

package vmdisk

import (
	"context"
	"sync"

	"github.com/vmdisk/vmdisk/domain"
	"golang.org/x/sync/errgroup"
)

const (
	// bootWave is how many machines are booted at once: each has a connection to
	// libvirt, and Ceph is asked for each.
	bootWave = 20
	// bootStarts is how many of them libvirt is asked to start at the same time. To
	// start a QEMU takes a core for half a second; more at once only take longer each.
	bootStarts = 4
)

// BootMany boots a machine of each name as [Host.Boot] does one, twenty at a time. What
// it returns has their order: a machine that runs, or why there is none and nothing is
// left of it. The machines of a wave begin to run together, once the last of them is
// started: guests that boot would take the processors from what starts the others.
//
// Similar to: virsh start --paused of each, and virsh resume.
func (h *Host) BootMany(ctx context.Context, names []string, o BootOptions) ([]VM, []error) {
	vms, errs := make([]VM, len(names)), make([]error, len(names))
	for from := 0; from < len(names); from += bootWave {
		to := min(from+bootWave, len(names))
		crowd := newCrowd(to - from)
		var group errgroup.Group
		for i := from; i < to; i++ {
			group.Go(func() error {
				vms[i], errs[i] = h.boot(ctx, names[i], o, crowd)
				return nil
			})
		}
		_ = group.Wait()
	}
	return vms, errs
}

// crowd is machines that boot together.
type crowd struct {
	starts chan struct{} // one for each that may start now
	coming sync.WaitGroup
	here   chan struct{} // closed when all are started, or have failed
}

func newCrowd(count int) *crowd {
	c := &crowd{starts: make(chan struct{}, bootStarts), here: make(chan struct{})}
	c.coming.Add(count)
	go func() {
		c.coming.Wait()
		close(c.here)
	}()
	return c
}

// arrive tells the crowd that nobody need wait for this one any more.
func (b *boot) arrive() {
	if b.crowd != nil {
		b.here.Do(b.crowd.coming.Done)
	}
}

// startPaused starts the machine, when it is its turn.
func (b *boot) startPaused(ctx context.Context) error {
	select {
	case b.crowd.starts <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-b.crowd.starts }()
	return domain.StartPaused(ctx, b.conn, b.name)
}

// run has the machine run, when all have been started.
func (b *boot) run(ctx context.Context) error {
	b.arrive()
	select {
	case <-b.crowd.here:
	case <-ctx.Done():
		return ctx.Err()
	}
	return domain.Resume(ctx, b.conn, b.name)
}
