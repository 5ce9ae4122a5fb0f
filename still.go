// A snapshot of a disk while its machine may run: the guest's filesystems are held
// still for it, and for no longer.

package vmdisk

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/domain"
)

// freezeDeadline is after how long a frozen guest is thawed, come what may. Windows
// does it by itself after this time. When the process dies before, repair does it.
const freezeDeadline = 10 * time.Second

// still is such a snapshot in the making.
type still struct {
	*session
	h          *Host
	op, object string      // of the workflow
	vm         domain.Info // which has the disk; the zero value is none
	name       disk.Name   // of the snapshot
	number     disk.SnapshotNumber
	frozen     *domain.Frozen
	held       bool      // it was taken while the guest held still
	taken      time.Time // when it was there
}

func (s *still) steps() []step {
	thaw, remove := s.thawing(), action{Verb: actRemoveSnap, Image: s.name.String()}
	take := step{name: "snapshot", detail: s.name.String, do: s.take, back: []action{remove}}
	if !s.vm.Running {
		return []step{take}
	}
	take.back = []action{thaw, remove} // a guest waits for nothing
	return []step{
		// This process has a connection of its own for the thawing, and a deadline.
		{name: "freeze", detail: says(s.vm.Name), do: s.freeze, undo: s.thaw, back: []action{thaw}},
		take,
		{name: "thaw", detail: says(s.vm.Name), do: s.thaw, ends: actThaw},
	}
}

func (s *still) thawing() action {
	return action{Verb: actThaw, VM: s.vm.UUID, Name: s.vm.Name, Host: s.host}
}

// freeze does without where the guest does not do it: the snapshot is then what a
// power cut would leave, which is what journals are for.
func (s *still) freeze(ctx context.Context) (err error) {
	s.frozen, err = domain.Freeze(ctx, s.conn, s.vm.UUID, freezeDeadline)
	if err == nil || ctx.Err() != nil {
		return err
	}
	s.tell(Note, fmt.Sprintf("%s is not frozen (%v): the %s will be as after a power cut", s.vm.Name, err, s.op))
	return nil
}

// thaw is a step's work and its undo. A guest that may still be frozen is an error;
// one that wrote too early is not.
func (s *still) thaw(ctx context.Context) error {
	if s.frozen == nil {
		return nil
	}
	err := s.frozen.Thaw()
	s.frozen, s.held = nil, err == nil
	if err == nil {
		return nil
	}
	s.tell(Warning, err.Error())
	if errors.Is(err, domain.ErrTimeout) {
		return nil
	}
	return s.h.act(ctx, s.session, s.thawing()) // its connection may have been the trouble
}

// reserve asks for the number of a snapshot that is to be taken later. That of a machine
// which runs is librbd's to take.
func (s *still) reserve() {
	if !s.vm.Running {
		s.number = s.cluster.ReserveSnapshot(s.name.Pool)
	}
}

func (s *still) take(ctx context.Context) error {
	err := s.cluster.TakeSnapshot(ctx, s.name, s.number)
	s.taken = time.Now().UTC().Truncate(time.Microsecond)
	return err
}

func (s *still) tell(kind EventKind, text string) {
	s.h.emit(Event{Kind: kind, Op: s.op, Object: s.object, Step: "note", Detail: text})
}
