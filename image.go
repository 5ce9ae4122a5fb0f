// Images: what machines are booted from.

package vmdisk

import (
	"context"
	"errors"
	"path/filepath"
	"strings"

	"github.com/vmdisk/vmdisk/disk"
)

// ImportOptions say what a file becomes.
type ImportOptions struct {
	// ID is the image's name, [POOL/]ID; "" is the file's name without its suffix.
	ID string
	// Format is "raw", "qcow2", or "" to tell by the file's first bytes.
	Format string
	// MaxSize is the largest virtual size to accept, in bytes; 0 is 2 TiB.
	MaxSize int64
}

// ImportImage copies a raw or qcow2 file into a new image, verifies it, and takes
// the protected snapshot that machines are cloned from. A file that is damaged,
// refers to other files or is of another format is [disk.ErrBadSource], before
// anything is made. A failed import leaves nothing.
//
// Similar to: qemu-img convert to rbd, then rbd snap create and protect.
func (h *Host) ImportImage(ctx context.Context, path string, o ImportOptions) (disk.Image, error) {
	const op = "import"
	if o.ID == "" {
		base := filepath.Base(path)
		o.ID = strings.TrimSuffix(base, filepath.Ext(base))
	}
	name, err := disk.ParseImageID(o.ID)
	if err != nil {
		return disk.Image{}, failed(op, path, err)
	}
	src, err := disk.OpenSource(path, disk.SourceOptions{Format: o.Format, MaxSize: o.MaxSize})
	if err != nil {
		return disk.Image{}, failed(op, path, err)
	}
	defer src.Close()
	cluster, err := h.Cluster(ctx)
	if err != nil {
		return disk.Image{}, failed(op, path, err)
	}
	i := &importing{h: h, cluster: cluster, src: src, name: name}
	err = h.perform(ctx, task{
		op: op, object: name.Image, on: &session{cluster: cluster}, pool: name.Pool, leases: []string{name.String()},
		check: func(ctx context.Context) error { return cluster.Absent(ctx, name) },
		steps: steps(i.steps(filepath.Base(path))...),
	})
	if err != nil {
		return disk.Image{}, err
	}
	image, err := cluster.Image(context.WithoutCancel(ctx), name)
	return image, failed(op, path, err)
}

// importing is what the steps share.
type importing struct {
	h        *Host
	cluster  *disk.Cluster
	src      *disk.Source
	name     disk.Name
	snapshot disk.SnapshotNumber // nil before the first step
}

func (i *importing) steps(file string) []step {
	return append([]step{
		{name: "create", detail: says(i.name.String() + ", " + disk.FormatSize(i.src.Size())), back: i.unmake(),
			do: func(ctx context.Context) error {
				i.reserve()
				return i.cluster.BeginImport(ctx, i.name, i.src.Size())
			}},
		{name: "copy", detail: says(i.src.Format() + " " + file), do: func(ctx context.Context) error {
			return i.cluster.Import(ctx, i.name, i.src, i.h.progress("import", i.name.Image, "copy"))
		}},
	}, i.release()...)
}

// reserve asks for the snapshot's number, which comes while the data is copied.
func (i *importing) reserve() { i.snapshot = i.cluster.ReserveSnapshot(i.name.Pool) }

// unmake takes back all but the name.
func (i *importing) unmake() []action {
	return []action{{Verb: actRemoveImage, Image: disk.PartName(i.name).String()}}
}

// release makes an image that is whole one that machines can be booted from. It has
// happened with the name: somebody may boot from it in the next moment.
func (i *importing) release() []step {
	part, snap, made := disk.PartName(i.name), i.name, disk.PartName(i.name)
	snap.Snap, made.Snap = disk.ImageSnapshot, disk.ImageSnapshot
	return []step{
		{name: "snapshot", detail: says(snap.String() + ", protected"), do: func(ctx context.Context) error { return i.cluster.Seal(ctx, made, i.snapshot) }},
		{name: "name", detail: says(i.name.String()), commit: true,
			do: func(ctx context.Context) error { return i.cluster.Rename(ctx, part, i.name) },
			on: []action{{Verb: actRename, Image: part.String(), To: i.name.String()}}},
	}
}

// Images describes the images that machines can be booted from.
//
// Similar to: rbd ls -l images.
func (h *Host) Images(ctx context.Context) ([]disk.Image, error) {
	cluster, err := h.Cluster(ctx)
	if err != nil {
		return nil, failed("list", "images", err)
	}
	all, err := cluster.Images(ctx, disk.ImagePool)
	return all, failed("list", "images", err)
}

// Image describes one image, [POOL/]ID.
//
// Similar to: rbd info.
func (h *Host) Image(ctx context.Context, id string) (disk.Image, error) {
	const op = "inspect"
	cluster, name, err := h.imageName(ctx, id)
	if err != nil {
		return disk.Image{}, failed(op, id, err)
	}
	image, err := cluster.Image(ctx, name)
	return image, explainImage(ctx, cluster, name, failed(op, id, err))
}

// RemoveImage removes an image; one with clones, or that somebody has open, is
// left as it is and the error names them.
//
// Similar to: rbd snap unprotect, rbd snap rm, rbd rm.
func (h *Host) RemoveImage(ctx context.Context, id string) error {
	const op = "remove"
	cluster, name, err := h.imageName(ctx, id)
	if err != nil {
		return failed(op, id, err)
	}
	remove := []action{{Verb: actRemoveImage, Image: name.String()}}
	err = h.perform(ctx, task{
		op: op, object: name.String(), on: &session{cluster: cluster}, pool: name.Pool, leases: []string{name.String()}, forward: true,
		check: func(ctx context.Context) error { return cluster.ImageRemovable(ctx, name) },
		steps: steps(
			step{name: "snapshot", detail: name.String, on: remove,
				do: func(ctx context.Context) error { return gone(cluster.DropImageSnapshot(ctx, name)) }},
			step{name: "remove", detail: name.String, on: remove,
				do: func(ctx context.Context) error { return cluster.RemoveImage(ctx, name) }}),
	})
	return explainImage(ctx, cluster, name, err)
}

// dropImage removes an image that a dead process was making or removing. One that
// has got clones since is whole, and stays.
func dropImage(ctx context.Context, cluster *disk.Cluster, n disk.Name) error {
	err := gone(cluster.WaitUnused(ctx, n)) // who died may have had it open
	if err == nil {
		err = gone(cluster.RemoveImage(ctx, n))
	}
	if errors.Is(err, disk.ErrHasClones) {
		n.Snap = disk.ImageSnapshot
		return cluster.ProtectSnapshot(ctx, n)
	}
	return err
}
