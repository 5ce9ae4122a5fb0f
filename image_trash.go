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
	err = h.run(ctx, op, name.String(), step{name: "trash", detail: name.String,
		do: func(ctx context.Context) error { return cluster.TrashImage(ctx, name, keep) },
		undo: func(ctx context.Context) error {
			err := cluster.RestoreTrash(ctx, name)
			if errors.Is(err, disk.ErrNotFound) {
				return errNothing
			}
			return err
		}})
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
	t, err := cluster.InTrash(ctx, name)
	if err != nil {
		return disk.Image{}, failed(op, name.String(), err)
	}
	err = h.run(ctx, op, name.String(), step{name: "restore", detail: name.String,
		do: func(ctx context.Context) error { return cluster.RestoreTrash(ctx, name) },
		undo: func(ctx context.Context) error {
			err := cluster.MoveToTrash(ctx, name, max(0, time.Until(t.Expires)))
			if errors.Is(err, disk.ErrNotFound) {
				return errNothing
			}
			return err
		}})
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
	t, err := cluster.InTrash(ctx, name)
	if err != nil {
		return t, failed(op, name.String(), err)
	}
	if !force && time.Now().Before(t.Expires) {
		return t, &Error{Op: op, Object: name.String(), Err: &disk.Error{Kind: disk.ErrPermission,
			Reason: "it is to be kept until " + t.Expires.Local().Format("2006-01-02 15:04")},
			Next: "to remove it now:  vmdisk image purge --force '" + id + "'"}
	}
	return t, h.run(ctx, op, name.String(),
		step{name: "snapshot", detail: name.String, do: func(ctx context.Context) error {
			return cluster.DropTrashedSnapshots(ctx, t, func(s string) bool { return s == disk.ImageSnapshot })
		}},
		step{name: "purge", detail: name.String, do: func(ctx context.Context) error { return cluster.PurgeTrash(ctx, t, force) }})
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
