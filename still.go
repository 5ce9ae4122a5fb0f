// A snapshot of a machine's disk while the machine may run: the guest's filesystems
// are held still for it, and for no longer.

package vmdisk

import (
	"context"
	"errors"
	"time"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/domain"
)

// freezeDeadline is after how long a frozen guest is thawed, come what may. Windows
// does it by itself after this time.
const freezeDeadline = 10 * time.Second

// still is such a snapshot in the making.
type still struct {
	session
	vm     domain.Info
	name   disk.Name // of the snapshot
	frozen *domain.Frozen
	bare   bool // no agent answers
}

func (s *still) steps() []step {
	thaw := action{Verb: actThaw, VM: s.vm.UUID, Name: s.vm.Name, Host: s.host}
	remove := action{Verb: actRemoveSnap, Image: s.name.String()}
	take := step{name: "snapshot", detail: s.name.String, do: s.take, back: []action{remove}}
	if !s.vm.Running {
		return []step{take}
	}
	take.back = []action{thaw, remove} // a guest waits for nothing
	return []step{
		// This process has a connection of its own for the thawing, and a deadline.
		{name: "freeze", detail: s.calm, do: s.freeze, undo: s.unfreeze, back: []action{thaw}},
		take,
		{name: "thaw", detail: s.calmed, do: s.thaw},
	}
}

func (s *still) calm() string {
	if s.bare {
		return "no guest agent: it is as after a power failure"
	}
	return "filesystems of " + s.vm.Name
}

func (s *still) calmed() string {
	if s.bare {
		return "nothing was frozen"
	}
	return "filesystems of " + s.vm.Name
}

// freeze does without where there is no agent: the snapshot is then what a power
// failure would leave, which is what journals are for.
func (s *still) freeze(ctx context.Context) (err error) {
	s.frozen, err = domain.Freeze(ctx, s.conn, s.vm.UUID, freezeDeadline)
	if errors.Is(err, domain.ErrNoAgent) || errors.Is(err, domain.ErrNotRunning) {
		s.bare = true
		return nil
	}
	return err
}

func (s *still) thaw(context.Context) error {
	if s.frozen == nil {
		return nil
	}
	return s.frozen.Thaw()
}

func (s *still) unfreeze(ctx context.Context) error {
	if s.frozen == nil {
		return errNothing
	}
	err := s.thaw(ctx)
	if errors.Is(err, domain.ErrTimeout) {
		return nil // it is thawed, only not by us
	}
	return err
}

func (s *still) take(ctx context.Context) error { return s.cluster.CreateSnapshot(ctx, s.name) }
