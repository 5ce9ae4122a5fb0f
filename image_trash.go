// Images in the trash: out of sight, restorable, and then gone for good.

package vmdisk

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/vmdisk/vmdisk/disk"
)

// TrashImage moves an image, with its snapshot, into the trash, where it is kept
// from being purged for at least keep. One that is open is [disk.ErrInUse], one with
// clones [disk.ErrHasClones]; each names them. [Host.RestoreImage] takes it out again.
//
// Similar to: rbd trash mv --expires-at.
func (h *Host) TrashImage(ctx context.Context, id string, keep time.Duration) (disk.Trashed, error) {
	const op = "trash"
	cluster, name, err := h.imageName(ctx, id)
	if err != nil {
		return disk.Trashed{}, failed(op, id, err)
	}
	if keep < 0 {
		return disk.Trashed{}, failed(op, id, badInput("it cannot be kept for %v", keep))
	}
	err = h.perform(ctx, task{
		op: op, object: name.String(), on: &session{cluster: cluster}, pool: name.Pool, leases: []string{name.String()}, forward: true,
		check: func(ctx context.Context) error { return cluster.ImageTrashable(ctx, name) },
		steps: steps(step{name: "trash", detail: name.String,
			do: func(ctx context.Context) error { return cluster.TrashImage(ctx, name, keep) },
			on: []action{{Verb: actTrash, Image: name.String(), Until: time.Now().Add(keep)}}}),
	})
	if err != nil {
		return disk.Trashed{}, err
	}
	t, err := cluster.InTrash(context.WithoutCancel(ctx), name)
	return t, failed(op, name.String(), err)
}

// TrashedImages lists the images in the trash, by name and then by age.
//
// Similar to: rbd trash ls images.
func (h *Host) TrashedImages(ctx context.Context) ([]disk.Trashed, error) {
	cluster, err := h.Cluster(ctx)
	if err != nil {
		return nil, failed("list", "trash", err)
	}
	all, err := cluster.Trash(ctx, disk.ImagePool)
	return all, failed("list", "trash", err)
}

// RestoreImage takes the image of this ID that was moved to the trash last out of it.
// If there is none it is [disk.ErrNotFound], if there is such an image by now
// [disk.ErrExists].
//
// Similar to: rbd trash restore.
func (h *Host) RestoreImage(ctx context.Context, id string) (disk.Image, error) {
	const op = "restore"
	cluster, name, err := h.imageName(ctx, id)
	if err != nil {
		return disk.Image{}, failed(op, id, err)
	}
	var t disk.Trashed
	err = h.perform(ctx, task{
		op: op, object: name.String(), on: &session{cluster: cluster}, pool: name.Pool, leases: []string{name.String()}, forward: true,
		check: func(ctx context.Context) (err error) {
			if t, err = cluster.InTrash(ctx, name); err == nil {
				err = cluster.Absent(ctx, name)
			}
			return err
		},
		steps: func() []step {
			return []step{{name: "restore", detail: name.String,
				do: func(ctx context.Context) error { return cluster.RestoreTrashed(ctx, t) },
				on: []action{{Verb: actRestore, Image: name.String(), ID: t.ID}}}}
		},
	})
	if err != nil {
		return disk.Image{}, err
	}
	image, err := cluster.Image(context.WithoutCancel(ctx), name)
	return image, failed(op, name.String(), err)
}

// PurgeImage removes for good the image of this ID that was moved to the trash last.
// One that is to be kept longer is [disk.ErrPermission] unless force is set.
// Interrupted, it is finished by running it again.
//
// Similar to: rbd trash rm.
func (h *Host) PurgeImage(ctx context.Context, id string, force bool) (disk.Trashed, error) {
	const op = "purge"
	cluster, name, err := h.imageName(ctx, id)
	if err != nil {
		return disk.Trashed{}, failed(op, id, err)
	}
	p := &purge{cluster: cluster, name: name, force: force}
	err = h.perform(ctx, task{
		op: op, object: name.String(), on: &session{cluster: cluster}, pool: name.Pool, leases: []string{name.String()}, forward: true,
		check: p.check, steps: p.steps,
	})
	var e *Error
	if errors.Is(err, disk.ErrPermission) && errors.As(err, &e) && e.Step == "" && time.Now().Before(p.t.Expires) {
		e.Next = "to remove it now:  vmdisk image purge --force '" + id + "'"
	}
	return p.t, err
}

// purge is what the steps share.
type purge struct {
	cluster *disk.Cluster
	name    disk.Name
	force   bool
	t       disk.Trashed
}

func (p *purge) check(ctx context.Context) (err error) {
	if p.t, err = p.cluster.InTrash(ctx, p.name); err != nil {
		return err
	}
	if !p.force && time.Now().Before(p.t.Expires) {
		return &disk.Error{Kind: disk.ErrPermission, Reason: "it is to be kept until " + p.t.Expires.Local().Format("2006-01-02 15:04")}
	}
	return p.cluster.TrashedRemovable(ctx, p.t, disk.ImageSnapshot)
}

func (p *purge) steps() []step {
	on := func(v verb) []action { return []action{{Verb: v, Image: p.name.String(), ID: p.t.ID}} }
	return []step{
		{name: "snapshot", detail: p.name.String, on: on(actDropTrashed), do: func(ctx context.Context) error {
			return gone(p.cluster.DropTrashedSnapshots(ctx, p.t, nil))
		}},
		{name: "purge", detail: p.name.String, on: on(actPurge), do: func(ctx context.Context) error { return p.cluster.PurgeTrash(ctx, p.t, p.force) }},
	}
}

func (h *Host) imageName(ctx context.Context, id string) (*disk.Cluster, disk.Name, error) {
	name, err := disk.ParseImageID(id)
	if err != nil {
		return nil, name, err
	}
	cluster, err := h.Cluster(ctx)
	return cluster, name, err
}

// explainImage says of an image that is not there whether it is in the trash.
func explainImage(ctx context.Context, cluster *disk.Cluster, n disk.Name, err error) error {
	if !errors.Is(err, disk.ErrNotFound) {
		return err
	}
	if _, missing := cluster.InTrash(ctx, n); missing != nil {
		return err
	}
	var e *Error
	if errors.As(err, &e) && e.Next == "" {
		e.Next = "it is in the trash:  vmdisk image restore '" + strings.TrimPrefix(n.String(), disk.ImagePool+"/") + "'"
	}
	return err
}
