// Images: what machines are booted from.

package vmdisk

import (
	"context"
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
	name, err := disk.ParseImage(o.ID)
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
	name.Snap = ""
	var image disk.Image
	ours := false // a failed import removes what it made by itself
	err = h.run(ctx, op, name.Image, step{
		name: "copy",
		detail: func() string {
			return src.Format() + " " + filepath.Base(path) + " → " + name.String() + ", " + disk.FormatSize(src.Size())
		},
		do: func(ctx context.Context) (err error) {
			image, err = cluster.ImportImage(ctx, name, src, func(done, total int64) {
				h.emit(Event{Kind: Progress, Op: op, Object: name.Image, Step: "copy", Bytes: done, Total: total})
			})
			ours = err == nil
			return err
		},
		undo: func(ctx context.Context) error {
			if !ours {
				return nil
			}
			return cluster.RemoveImage(ctx, name)
		},
	})
	return image, err
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
	return withImage(ctx, h, "inspect", id, (*disk.Cluster).Image)
}

// RemoveImage removes an image; one with clones, or that somebody has open, is
// left as it is and the error names them.
//
// Similar to: rbd snap unprotect, rbd snap rm, rbd rm.
func (h *Host) RemoveImage(ctx context.Context, id string) error {
	_, err := withImage(ctx, h, "remove", id, func(c *disk.Cluster, ctx context.Context, n disk.Name) (disk.Image, error) {
		return disk.Image{}, c.RemoveImage(ctx, n)
	})
	return err
}

func withImage(ctx context.Context, h *Host, op, id string,
	f func(*disk.Cluster, context.Context, disk.Name) (disk.Image, error)) (disk.Image, error) {
	name, err := disk.ParseImage(id)
	if err != nil {
		return disk.Image{}, failed(op, id, err)
	}
	cluster, err := h.Cluster(ctx)
	if err != nil {
		return disk.Image{}, failed(op, id, err)
	}
	image, err := f(cluster, ctx, name)
	return image, failed(op, id, err)
}
