// Volumes: disks that outlive machines.

package vmdisk

import (
	"context"
	"errors"

	"github.com/google/uuid"
	"github.com/vmdisk/vmdisk/disk"
)

// CreateVolume makes an empty volume of size bytes, a whole number of GiB. An
// empty id is a new UUID.
//
// Similar to: rbd create.
func (h *Host) CreateVolume(ctx context.Context, id string, size int64) (disk.Volume, error) {
	const op = "create"
	if id == "" {
		id = uuid.NewString()
	}
	name, err := disk.ParseVolume(id)
	if err != nil {
		return disk.Volume{}, failed(op, "volume "+id, err)
	}
	cluster, err := h.Cluster(ctx)
	if err != nil {
		return disk.Volume{}, failed(op, "volume "+id, err)
	}
	var v disk.Volume
	ours := false
	err = h.run(ctx, op, name.String(), step{
		name:   "create",
		detail: func() string { return name.String() + ", " + disk.FormatSize(size) },
		do: func(ctx context.Context) error {
			err := cluster.Absent(ctx, name)
			if err != nil {
				return err
			}
			v, err = cluster.CreateVolume(ctx, name, size)
			ours = !errors.Is(err, disk.ErrExists)
			return err
		},
		undo: func(ctx context.Context) error {
			if !ours {
				return errNothing
			}
			return cluster.RemoveDisk(ctx, name)
		},
	})
	return v, err
}

// Volumes lists the volumes, by name.
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

// RemoveVolume removes a volume that no machine has and nothing depends on.
//
// Similar to: rbd rm.
func (h *Host) RemoveVolume(ctx context.Context, volume string) error {
	const op = "remove"
	name, err := disk.ParseVolume(volume)
	if err != nil {
		return failed(op, "volume "+volume, err)
	}
	cluster, err := h.Cluster(ctx)
	if err != nil {
		return failed(op, "volume "+volume, err)
	}
	return h.run(ctx, op, name.String(), step{name: "remove", detail: name.String,
		do: func(ctx context.Context) error { return cluster.RemoveVolume(ctx, name) }})
}
