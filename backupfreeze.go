// Which guest is held still while the snapshot for a backup is taken.

package vmdisk

import (
	"context"
	"errors"

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
		b.note("in use by who knows whom: the backup will be as after a power cut")
		return gone(err)
	}
	unfrozen := func(why string) { b.note(why + ": the backup will be as after a power cut") }
	if err := b.openHost(ctx, b.h); err != nil {
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
		b.still.vm = info
	}
	return ctx.Err()
}
