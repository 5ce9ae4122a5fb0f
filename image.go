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
	if err := h.run(ctx, op, name.Image, i.steps(filepath.Base(path))...); err != nil {
		return disk.Image{}, err
	}
	if err := i.made.Close(); err != nil {
		return disk.Image{}, failed(op, path, err)
	}
	image, err := cluster.Image(context.WithoutCancel(ctx), name)
	return image, failed(op, path, err)
}

// importing is the state that the steps share.
type importing struct {
	h       *Host
	cluster *disk.Cluster
	src     *disk.Source
	name    disk.Name
	made    *disk.Import
	named   bool
}

func (i *importing) steps(file string) []step {
	snap := i.name
	snap.Snap = disk.ImageSnapshot
	return []step{
		{name: "create", detail: says(i.name.String() + ", " + disk.FormatSize(i.src.Size())), do: i.create, undo: i.abandon},
		{name: "copy", detail: says(i.src.Format() + " " + file), do: i.copy},
		{name: "snapshot", detail: says(snap.String()), do: func(ctx context.Context) error { return i.made.Snapshot(ctx) }},
		{name: "protect", detail: says(snap.String()), do: func(ctx context.Context) error { return i.made.Protect(ctx) }},
		{name: "name", detail: says(i.name.String()), do: i.rename, undo: i.removeNamed},
	}
}

func (i *importing) create(ctx context.Context) (err error) {
	i.made, err = i.cluster.BeginImport(ctx, i.name, i.src.Size())
	return err
}

// abandon takes back all but the name.
func (i *importing) abandon(ctx context.Context) error {
	if i.made == nil {
		return errNothing
	}
	return i.made.Abandon(ctx)
}

func (i *importing) copy(ctx context.Context) error {
	return i.made.Copy(ctx, i.src, i.h.progress("import", i.name.Image, "copy"))
}

func (i *importing) rename(ctx context.Context) error {
	err := i.made.Name(ctx)
	i.named = err == nil
	return err
}

// removeNamed takes back an image that was whole.
func (i *importing) removeNamed(ctx context.Context) error {
	if !i.named {
		return errNothing // should it have been named after all, it is whole
	}
	if err := i.made.Close(); err != nil {
		return err
	}
	err := i.cluster.RemoveImage(ctx, i.name)
	if errors.Is(err, disk.ErrNotFound) {
		return nil
	}
	return err
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
	err = h.run(ctx, op, name.String(), step{name: "remove", detail: name.String,
		do: func(ctx context.Context) error { return cluster.RemoveImage(ctx, name) }})
	return explainImage(ctx, cluster, name, err)
}
