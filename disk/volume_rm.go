// Removing a volume: judged as Cinder's users expect, with the snapshots that are
// good for nothing without it, at once or from the trash.

package disk

import (
	"context"

	"github.com/ceph/go-ceph/rbd"
)

// VolumeRemoval is what goes with a volume.
type VolumeRemoval struct {
	// Snapshots are the volume's own that go first: those of backups, without the
	// volume no base for anything (source: cinder, _delete_backup_snaps), and those
	// that clones hung on which are gone.
	Snapshots []Name
	// Ancestors are what only the volume keeps; see [Cluster.Ancestors].
	Ancestors []Name
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
	err := c.RefuseUsed(ctx, "remove", n)
	if err == nil {
		err = c.removable(ctx, n)
	}
	if ignore(err, ErrNotFound) != nil {
		return err
	}
	return c.remove(ctx, n)
}

// Trashable says who keeps a volume from being moved into the trash: one that is open
// or claimed by a machine is [ErrInUse], one with clones [ErrHasClones].
func (c *Cluster) Trashable(ctx context.Context, n Name) error {
	if err := c.RefuseUsed(ctx, "move to trash", n); err != nil {
		return err
	}
	return ignore(c.removable(ctx, n), ErrHasSnapshots)
}

// JudgePurge says what an image in the trash keeps that nothing else needs, see
// [Cluster.Ancestors]. One with clones is [ErrHasClones] and names them, one that is
// not there any more [ErrNotFound]. One of which a purge that was cut short left only
// the entry keeps nothing.
func (c *Cluster) JudgePurge(ctx context.Context, t Trashed) ([]Name, error) {
	n := Name{Pool: t.Pool, Image: t.Image}
	if err := c.stillTrashed(ctx, t); err != nil {
		return nil, err
	}
	err := c.viewID(ctx, n, t.ID, func(img *rbd.Image) error { return refuseClones(img, n, " (in the trash)") })
	var from []Name
	if err == nil {
		from, err = c.Ancestors(ctx, n, t.ID)
	}
	return from, ignore(err, ErrNotFound)
}
