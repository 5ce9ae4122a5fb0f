// Volumes: disks that outlive machines. What there is, and empty ones.

package vmdisk

import (
	"context"
	"errors"
	"strings"

	"github.com/google/uuid"
	"github.com/vmdisk/vmdisk/disk"
)

// CreateVolume makes an empty volume of size bytes, a whole number of GiB. An
// empty id is a new UUID.
//
// Similar to: rbd create.
func (h *Host) CreateVolume(ctx context.Context, id string, size int64) (disk.Volume, error) {
	const op = "create"
	cluster, name, err := h.newVolume(ctx, id)
	if err != nil {
		return disk.Volume{}, failed(op, "volume "+id, err)
	}
	var v disk.Volume
	err = h.perform(ctx, task{
		op: op, object: name.String(), on: &session{cluster: cluster},
		pool: name.Pool, leases: []string{name.String()},
		check: func(ctx context.Context) error { return cluster.Absent(ctx, name) },
		steps: steps(step{
			name:   "create",
			detail: func() string { return name.String() + ", " + disk.FormatSize(size) },
			do: func(ctx context.Context) (err error) {
				v, err = cluster.CreateVolume(ctx, name, size)
				return err
			},
			back: []action{{Verb: actRemove, Image: name.String()}},
		}),
	})
	return v, err
}

// newVolume is the name of a volume to be made.
func (h *Host) newVolume(ctx context.Context, id string) (*disk.Cluster, disk.Name, error) {
	if id == "" {
		id = uuid.NewString()
	}
	return h.volumeName(ctx, id)
}

func (h *Host) volumeName(ctx context.Context, volume string) (*disk.Cluster, disk.Name, error) {
	name, err := disk.ParseVolume(volume)
	if err != nil {
		return nil, name, err
	}
	cluster, err := h.Cluster(ctx)
	return cluster, name, err
}

// Volumes lists the volumes, by name. It reads their headers and opens none.
//
// Similar to: rbd ls -l volumes.
func (h *Host) Volumes(ctx context.Context) ([]disk.Volume, error) {
	cluster, err := h.Cluster(ctx)
	if err != nil {
		return nil, failed("list", "volumes", err)
	}
	all, err := cluster.Volumes(ctx, disk.VolumePool)
	return all, failed("list", "volumes", err)
}

// Volume describes one volume, named by its ID, volume-ID or POOL/IMAGE, with its
// snapshots and who has it open.
//
// Similar to: rbd info, rbd du, rbd snap ls, rbd children and rbd status.
func (h *Host) Volume(ctx context.Context, volume string) (disk.VolumeDetail, error) {
	const op = "inspect"
	cluster, name, err := h.volumeName(ctx, volume)
	if err != nil {
		return disk.VolumeDetail{}, failed(op, "volume "+volume, err)
	}
	d, err := cluster.VolumeDetail(ctx, name)
	return d, h.explain(ctx, cluster, name, failed(op, name.String(), err))
}

// explain adds to a volume's error what to type next: where to detach one that is
// in use, what its clones and snapshots need, that one which is not there is in the
// trash.
func (h *Host) explain(ctx context.Context, cluster *disk.Cluster, n disk.Name, err error) error {
	var e *Error
	if !errors.As(err, &e) || e.Next != "" {
		return err
	}
	ctx = context.WithoutCancel(ctx)
	var d *disk.Error
	switch {
	case errors.Is(err, disk.ErrHasClones) && errors.As(err, &d):
		e.Next = freeClone(d.Holders)
	case errors.Is(err, disk.ErrHasSnapshots) && errors.As(err, &d) && len(d.Holders) > 0:
		_, snap, _ := strings.Cut(d.Holders[0], "@")
		e.Next = "remove it first:  vmdisk volume snapshot rm " + disk.VolumeID(n.Image) + "@" + disk.SnapshotID(snap)
	case errors.Is(err, disk.ErrInUse) && !raced(err):
		if owner, err := cluster.Owner(ctx, n); err == nil {
			e.Next = "detach it first, on " + owner.Host + ":  vmdisk detach " + owner.VM + " " + disk.VolumeID(n.Image)
		}
	case errors.Is(err, disk.ErrNotFound):
		trashed, err := cluster.Trash(ctx, n.Pool)
		for _, t := range trashed {
			if err == nil && t.Image == n.Image {
				e.Next = "it is in the trash:  vmdisk volume restore " + disk.VolumeID(n.Image)
			}
		}
	}
	return err
}

// freeClone is how the first of some clones stops needing what it hangs on.
func freeClone(clones []string) string {
	for _, clone := range clones {
		spec, inTrash := strings.CutSuffix(clone, " (in the trash)")
		n, err := disk.ParseName(spec, disk.VolumePool)
		if err != nil || n.Pool != disk.VolumePool {
			continue
		}
		if inTrash {
			return "remove it for good first:  vmdisk volume purge --force " + disk.VolumeID(n.Image)
		}
		return "make it independent first:  vmdisk volume flatten " + disk.VolumeID(n.Image)
	}
	return ""
}
