// Removing a volume: judged as Cinder's users expect, with the snapshots that are
// good for nothing without it, at once or from the trash.

package disk

import (
	"context"
	"time"
)

// VolumeRemoval is what goes with a volume.
type VolumeRemoval struct {
	// Snapshots are the volume's own that go first: those of backups, without the
	// volume no base for anything (source: cinder, _delete_backup_snaps), and those
	// that clones hung on which are gone.
	Snapshots []Name
	// Ancestors are what only the volume keeps; see [Cluster.Ancestors].
	Ancestors []Ancestor
}

// JudgeRemoval says what removing a volume takes and who is in the way: a machine
// that it belongs to or somebody who has it open is [ErrInUse], clones are
// [ErrHasClones], a user's snapshots [ErrHasSnapshots]; each names them.
func (c *Cluster) JudgeRemoval(ctx context.Context, n Name) (VolumeRemoval, error) {
	var r VolumeRemoval
	if err := c.RefuseUsed(ctx, "remove", n); err != nil {
		return r, err
	}
	all, err := c.Snapshots(ctx, n)
	if err != nil {
		return r, err
	}
	var own []string
	for _, s := range all {
		kind := SnapshotKind(s.Name)
		if len(s.Clones) == 0 && (kind == KindBackup || kind == KindClone) {
			own = append(own, s.Name)
			r.Snapshots = append(r.Snapshots, Name{Pool: n.Pool, Image: n.Image, Snap: s.Name})
		}
	}
	if err := c.removable(ctx, n, own...); err != nil {
		return r, err
	}
	r.Ancestors, err = c.Ancestors(ctx, n, "")
	return r, err
}

// RefuseUsed refuses, with [ErrInUse], a volume that a machine owns, running or not,
// or somebody has open, and names them all.
func (c *Cluster) RefuseUsed(ctx context.Context, op string, n Name) error {
	by, err := c.Watchers(ctx, n)
	if err != nil {
		return err
	}
	e := &Error{Op: op, Object: n.String(), Kind: ErrInUse}
	owner, err := c.Owner(ctx, n)
	switch {
	case err == nil:
		e.Holders = append(e.Holders, owner.String())
	case !is(err, ErrNotFound):
		return err
	}
	for _, w := range by {
		e.Holders = append(e.Holders, w.String())
	}
	if len(e.Holders) > 0 {
		return e
	}
	return nil
}

// RemoveVolume removes a volume. It refuses with [ErrInUse] what is open or
// claimed by a machine, with [ErrHasClones] or [ErrHasSnapshots] what others
// depend on, and names them. What a creation that was killed left, an image that
// cannot be opened, goes too.
//
// Similar to: rbd rm.
func (c *Cluster) RemoveVolume(ctx context.Context, n Name) error {
	err := c.inTurn(ctx, "remove", n, func() error {
		if err := c.RefuseUsed(ctx, "remove", n); err != nil {
			return err
		}
		if err := c.removable(ctx, n); err != nil {
			return err
		}
		return c.remove(ctx, n)
	})
	if is(err, ErrNotFound) {
		return c.remove(ctx, n)
	}
	return err
}

// TrashVolume moves a volume, with its snapshots, into the trash. One that is open
// or claimed by a machine is [ErrInUse], one with clones [ErrHasClones].
//
// Similar to: rbd trash mv --expires-at.
func (c *Cluster) TrashVolume(ctx context.Context, n Name, keep time.Duration) error {
	if err := c.RefuseUsed(ctx, "move to trash", n); err != nil {
		return err
	}
	err := c.removable(ctx, n)
	if err := ignore(err, ErrHasSnapshots); err != nil {
		return err
	}
	return c.MoveToTrash(ctx, n, keep)
}
