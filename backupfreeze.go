// Holding a guest still while the snapshot for its backup is taken.

package vmdisk

import (
	"context"
	"errors"
	"fmt"

	"github.com/vmdisk/vmdisk/domain"
)

// findGuest looks for the machine that has the volume. Whatever keeps it from
// being frozen is worth a note and no failure.
func (b *backup) findGuest(ctx context.Context) error {
	by, err := b.cluster.Watchers(ctx, b.volume)
	if err != nil || len(by) == 0 {
		return err // nobody writes
	}
	owner, err := b.cluster.Owner(ctx, b.volume)
	if err != nil {
		b.note(Note, "in use by who knows whom: the backup will be as after a power cut")
		return gone(err)
	}
	unfrozen := func(why string) { b.note(Note, why+": the backup will be as after a power cut") }
	if b.conn, b.giveBack, err = b.h.borrow(ctx); err != nil {
		unfrozen(owner.VM + " cannot be frozen, libvirt does not answer")
		return ctx.Err()
	}
	info, err := domain.Find(ctx, b.conn, owner.UUID)
	switch {
	case errors.Is(err, domain.ErrNotFound):
		unfrozen(owner.VM + " is on " + owner.Host + " and can be frozen only there")
	case err != nil:
		unfrozen(err.Error())
	case info.Running:
		b.vm = info.Name
	}
	return ctx.Err()
}

func (b *backup) freeze(ctx context.Context) (err error) {
	b.frozen, err = domain.Freeze(ctx, b.conn, b.vm, freezeDeadline)
	if err == nil || ctx.Err() != nil {
		return err
	}
	b.note(Note, fmt.Sprintf("%s is not frozen (%v): the backup will be as after a power cut", b.vm, err))
	return nil
}

// thaw is a step's work and its undo. What the guest says cannot keep a backup from
// being made.
func (b *backup) thaw(context.Context) error {
	if b.frozen == nil {
		return nil
	}
	err := b.frozen.Thaw()
	b.frozen = nil
	b.rec.Frozen = err == nil
	if err != nil {
		b.note(Warning, err.Error())
	}
	return nil
}
