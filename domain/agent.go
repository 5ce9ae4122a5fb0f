// The guest agent: a guest's filesystems frozen for the moment of a snapshot,
// and never for longer.

package domain

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"libvirt.org/go/libvirt"
)

// ErrNoAgent is a guest in which no agent answers.
var ErrNoAgent = errors.New("no guest agent")

// freezeTimeout is how long the agent may take for one answer. libvirt's own
// default is to wait for ever.
const freezeTimeout = 10 * time.Second

// thawTries is how often an agent that did not answer is asked again to thaw: a
// guest that stays frozen is worse than a wait.
const thawTries = 3

// Frozen is a guest whose filesystems take no writes until it is thawed.
type Frozen struct {
	vm    string
	conn  *libvirt.Connect
	timer *time.Timer

	mu   sync.Mutex
	done bool
	late bool // the deadline thawed it, not the caller
	err  error
}

// Freeze has the guest write out its filesystems and hold them still, so that a
// snapshot is of whole files. The caller thaws it, and if it has not within
// deadline, that happens by itself. It blocks until the guest has done it, 10 s at
// most. A guest without an agent, or whose agent does not answer, is
// [ErrNoAgent], one that is off [ErrNotRunning]; it is then not frozen.
//
// It makes a libvirt connection of its own from conn, so that thawing waits for
// nobody.
//
// Similar to: virsh domfsfreeze.
func Freeze(ctx context.Context, conn *libvirt.Connect, vm string, deadline time.Duration) (*Frozen, error) {
	own, err := Another(ctx, conn, 0)
	if err != nil {
		return nil, err
	}
	f := &Frozen{vm: vm, conn: own}
	err = with(ctx, own, vm, func(d *libvirt.Domain) error { return freeze(d, vm) })
	if err != nil {
		_, _ = own.Close() // the first error says more
		return nil, err
	}
	f.timer = time.AfterFunc(deadline, func() { f.thaw(true) })
	return f, nil
}

func freeze(d *libvirt.Domain, vm string) error {
	state, _, err := d.GetState()
	if err != nil {
		return wrap("read state of", vm, err)
	}
	if state != libvirt.DOMAIN_RUNNING {
		return &Error{Op: "freeze", Object: vm, Kind: ErrNotRunning}
	}
	if err := d.AgentSetResponseTimeout(int(freezeTimeout.Seconds()), 0); err != nil {
		return noAgent(vm, err)
	}
	if err := d.FSFreeze(nil, 0); err != nil {
		// Some may be frozen, or all, with only the answer missing.
		_ = d.FSThaw(nil, 0)
		return noAgent(vm, err)
	}
	return nil
}

func noAgent(vm string, err error) error {
	return &Error{Op: "freeze", Object: vm, Kind: ErrNoAgent, Err: err, Reason: Message(err)}
}

// Thaw lets a guest write again that somebody else may have frozen. One that is not
// frozen, is off, or has no agent is fine.
//
// Similar to: virsh domfsthaw.
func Thaw(ctx context.Context, conn *libvirt.Connect, vm string) error {
	err := with(ctx, conn, vm, func(d *libvirt.Domain) error {
		err := d.FSThaw(nil, 0)
		for _, fine := range []libvirt.ErrorNumber{libvirt.ERR_OPERATION_INVALID, libvirt.ERR_ARGUMENT_UNSUPPORTED, libvirt.ERR_AGENT_UNRESPONSIVE} {
			if errors.Is(err, fine) { // without an agent that answers, nothing can be done
				return nil
			}
		}
		return wrap("thaw", vm, err)
	})
	return ignore(err, ErrNotFound)
}

// Thaw lets the guest write again. An error that the deadline had passed before is
// [ErrTimeout]: what was done since may have been done to a guest that writes.
// Calling it again does nothing and returns the same.
//
// Similar to: virsh domfsthaw.
func (f *Frozen) Thaw() error {
	f.timer.Stop()
	f.thaw(false)
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.late && f.err == nil {
		return &Error{Op: "thaw", Object: f.vm, Kind: ErrTimeout, Reason: "it had to be thawed before the snapshot was there"}
	}
	return f.err
}

func (f *Frozen) thaw(late bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.done {
		return
	}
	f.done, f.late = true, late
	for range thawTries {
		f.err = with(context.Background(), f.conn, f.vm, func(d *libvirt.Domain) error {
			return wrap("thaw", f.vm, d.FSThaw(nil, 0))
		})
		if f.err == nil {
			break
		}
	}
	f.err = ignore(f.err, ErrNotFound) // it is gone
	left, err := f.conn.Close()
	if err == nil && left > 0 {
		err = fmt.Errorf("libvirt connection is still referenced %d times", left)
	}
	f.err = errors.Join(f.err, err)
}
