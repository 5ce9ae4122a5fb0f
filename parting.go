// Parting a clone from the volumes it was made from: once it is gone, or on its own,
// what only it needed goes too.

package vmdisk

import (
	"context"
	"errors"
	"slices"

	"github.com/vmdisk/vmdisk/disk"
)

// parting is a volume that is removed, or flattened, and what it leaves behind.
type parting struct {
	volumeWork
	// look says what only the volume keeps, nearest first, or why it stays.
	look func(context.Context) ([]disk.Name, error)
	from []disk.Name
}

// part performs the work on the volume, of which the last step parts it from what
// it hangs on, and then clears that away. All of it is leased.
func (p *parting) part(ctx context.Context, op string, forward bool, work func() []step, again string) (err error) {
	if p.from, err = p.look(ctx); err != nil {
		return failed(op, p.name.String(), err)
	}
	t := p.task(op)
	leased := p.from
	for _, a := range leased {
		if disk.IsBackupSnapshot(a.Snap) { // which is not changed, but for its protection
			if _, err := p.h.backups(ctx); err != nil {
				return failed(op, p.name.String(), err)
			}
			continue
		}
		t.leases = append(t.leases, a.Pool+"/"+a.Image)
	}
	t.check = func(ctx context.Context) (err error) {
		if p.from, err = p.look(ctx); err != nil {
			return err
		}
		for _, a := range p.from {
			if !slices.Contains(leased, a) {
				return &disk.Error{Op: op, Object: p.name.String(), Kind: disk.ErrInUse,
					Reason: "what it hangs on has changed just now, it is " + a.String()}
			}
		}
		return nil
	}
	t.steps = func() []step { return append(work(), p.clear()...) }
	t.forward = forward
	err = p.h.perform(ctx, t)
	var e *Error
	if errors.As(err, &e) && e.Step == "clear" {
		e.Left = append(e.Left, "what "+p.name.String()+" hung on: "+p.from[0].String())
		e.Next = "to finish:  " + again
	}
	return err
}

// clear removes what the volume hung on, nearest first. A backup stays, and need not be
// protected any more.
func (p *parting) clear() (steps []step) {
	for _, a := range p.from {
		if disk.IsBackupSnapshot(a.Snap) {
			steps = append(steps, p.forward("clear", a.String(), action{Verb: actLoosen, Image: a.String(), Store: true}))
			continue
		}
		steps = append(steps, p.forward("clear", a.String(), action{Verb: actDrop, Image: a.String(), To: p.name.String()}))
	}
	return steps
}

// drop removes a snapshot that a volume hung on, with what was kept for it only. If
// the volume still hangs on it, it was not parted, and all stays.
func drop(ctx context.Context, cluster *disk.Cluster, n disk.Name, a action) error {
	clone, err := disk.ParseName(a.To, "")
	if err != nil {
		return err
	}
	from, err := cluster.Parent(ctx, clone)
	if gone(err) != nil || from == n {
		return err
	}
	return cluster.DropAncestor(ctx, n)
}
