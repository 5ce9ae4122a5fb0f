// Parting a clone from the volumes it was made from: what it leaves there is noted
// before it goes and cleared away after.

package vmdisk

import (
	"context"
	"errors"
	"slices"

	"github.com/vmdisk/vmdisk/disk"
)

// parting are the steps around a removal or a flattening. Once the clone is gone,
// or on its own, they only go forward: run again, they finish.
type parting struct {
	cluster *disk.Cluster
	clone   disk.Name
	from    []disk.Ancestor
	begun   bool // by a run before this one, which did not finish
	parted  bool // the clone is gone or on its own, as far as is known
}

// newParting finds what a volume leaves behind, or what an interrupted run noted of
// it. For one in the trash id says which.
func (h *Host) newParting(ctx context.Context, cluster *disk.Cluster, clone disk.Name, id string) (*parting, error) {
	p := &parting{cluster: cluster, clone: clone}
	from, err := cluster.Ancestors(ctx, clone, id)
	if gone(err) != nil {
		return p, err
	}
	noted, notedErr := cluster.Parting(ctx, clone)
	switch {
	case notedErr == nil:
		p.begun = true
	case !errors.Is(notedErr, disk.ErrNotFound):
		return p, notedErr
	}
	p.from = from
	for _, a := range noted {
		if !slices.Contains(p.from, a) {
			p.from = append(p.from, a)
		}
	}
	return p, err
}

// around puts the steps before and after those that part the clone from its
// ancestors, of which the last is what cannot be undone. A clone without ancestors
// needs none.
func (p *parting) around(work []step) []step {
	if len(p.from) == 0 && !p.begun {
		return work
	}
	steps := []step{{
		name: "note", detail: says("what " + p.clone.String() + " leaves behind"),
		do: func(ctx context.Context) error { return p.cluster.NoteParting(ctx, p.clone, p.from) },
		undo: func(ctx context.Context) error {
			if p.begun {
				return errNothing
			}
			return p.cluster.ForgetParting(ctx, p.clone)
		},
	}}
	p.parted = len(work) == 0
	for i, s := range work {
		if i == len(work)-1 {
			s = p.parts(s)
		}
		steps = append(steps, s)
	}
	for _, a := range p.from {
		steps = append(steps, step{name: "clear", detail: a.Name().String,
			do: func(ctx context.Context) error { return p.cluster.DropAncestor(ctx, a) }})
	}
	return append(steps, step{name: "forget", detail: p.clone.String,
		do: func(ctx context.Context) error { return p.cluster.ForgetParting(ctx, p.clone) }})
}

// parts makes a step the point of no return.
func (p *parting) parts(s step) step {
	do := s.do
	s.commit = true
	s.do = func(ctx context.Context) error {
		err := do(ctx)
		p.parted = err == nil || errors.Is(err, disk.ErrTimeout)
		return err
	}
	return s
}

// unfinished says what finishes a run that did not.
func (p *parting) unfinished(err error, again string) error {
	var e *Error
	if errors.As(err, &e) && p.parted && len(p.from) > 0 {
		e.Left = append(e.Left, "what "+p.clone.String()+" hung on: "+p.from[0].Name().String())
		e.Next = "to finish:  " + again
	}
	return err
}
