// Export: from an image to a file.

package vmdisk

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"

	"github.com/vmdisk/vmdisk/disk"
)

// ExportOptions say what an image becomes.
type ExportOptions struct {
	// Format is "raw" or "qcow2"; "" is qcow2 if the file's name ends in that, else
	// raw.
	Format string
	// Writer, if not nil, is given every byte of the raw image, and no file is made.
	Writer io.Writer
	// Force replaces a file that exists, when the new one is whole.
	Force bool
	// Checksum is "md5", "sha256" or "sha512" of the image's bytes, or "" for none.
	Checksum string
}

// Exported is what became of an image.
type Exported struct {
	ID       string `json:"id"`
	File     string `json:"file"` // "" for a stream
	Format   string `json:"format"`
	Size     int64  `json:"size"` // virtual, in bytes
	Used     int64  `json:"used"` // bytes of disk that the file takes up
	Checksum string `json:"checksum,omitempty"`
}

// ExportImage copies the protected snapshot of an image, [POOL/]ID, or the image
// itself where it has none, to a new raw or qcow2 file. The file gets its name when
// it is whole and on stable storage; a failed export leaves nothing. A file that
// exists is [disk.ErrExists], a full file system [disk.ErrNoSpace]. An image that is
// a qcow2 stored as it was is [disk.ErrNotRaw] unless the format is said to be raw.
//
// Similar to: rbd export, qemu-img convert from rbd.
func (h *Host) ExportImage(ctx context.Context, id, path string, o ExportOptions) (Exported, error) {
	const op = "export"
	x := &exporting{h: h, path: path, o: o}
	if err := x.prepare(ctx, id); err != nil {
		return Exported{}, failed(op, id, err)
	}
	err := h.run(ctx, op, x.image.ID, x.steps()...)
	var e *Error
	if errors.Is(err, disk.ErrExists) && errors.As(err, &e) {
		e.Next = "to replace it:  --force"
	}
	if err != nil {
		return Exported{}, err
	}
	return x.outcome(), nil
}

// exporting is the state that the steps share.
type exporting struct {
	h       *Host
	cluster *disk.Cluster
	path    string
	o       ExportOptions
	image   disk.Image
	target  *disk.Target
	sum     string
}

func (x *exporting) prepare(ctx context.Context, id string) error {
	name, err := disk.ParseImageID(id)
	if err != nil {
		return err
	}
	asked := x.o.Format
	if x.o.Writer != nil && asked == "qcow2" {
		return badInput("a qcow2 cannot be streamed; export to a file")
	}
	if x.o.Format == "" {
		x.o.Format = "raw"
		if x.o.Writer == nil && filepath.Ext(x.path) == ".qcow2" {
			x.o.Format = "qcow2"
		}
	}
	if x.cluster, err = x.h.Cluster(ctx); err != nil {
		return err
	}
	if x.image, err = x.cluster.Image(ctx, name); err != nil {
		return explainImage(ctx, x.cluster, name, failed("export", id, err))
	}
	if x.image.Format != "raw" && x.image.Format != "luks" && asked != "raw" {
		return &disk.Error{Op: "export", Object: name.String(), Kind: disk.ErrNotRaw,
			Reason: "it is a " + x.image.Format + " file, stored as it was"}
	}
	return nil
}

func (x *exporting) steps() []step {
	copying := step{name: "copy", detail: says(x.image.Name().String() + " → " + x.o.Format), do: x.copy}
	if x.o.Writer != nil {
		return []step{copying}
	}
	return []step{
		{name: "create", detail: says("in " + filepath.Dir(x.path)), do: x.create, undo: x.abandon},
		copying,
		{name: "name", detail: says(x.path), do: func(context.Context) error { return x.target.Name() }, undo: x.unname},
	}
}

func (x *exporting) create(context.Context) (err error) {
	x.target, err = disk.CreateTarget(x.path, x.o.Format, x.o.Force)
	return err
}

func (x *exporting) abandon(context.Context) error { return x.target.Abandon() }

// unname removes a file that was whole, unless it took the place of another, which
// cannot be brought back.
func (x *exporting) unname(context.Context) error {
	if x.o.Force {
		return errNothing
	}
	return os.Remove(x.path)
}

func (x *exporting) copy(ctx context.Context) (err error) {
	o := disk.ExportOptions{Checksum: x.o.Checksum, Progress: x.h.progress("export", x.image.ID, "copy")}
	if x.o.Writer != nil {
		x.sum, err = x.cluster.ExportTo(ctx, x.image.Name(), x.o.Writer, o)
	} else {
		x.sum, err = x.cluster.Export(ctx, x.image.Name(), x.target, o)
	}
	return err
}

func (x *exporting) outcome() Exported {
	e := Exported{ID: x.image.ID, Format: x.o.Format, Size: x.image.Size, Checksum: x.sum}
	if x.o.Writer == nil {
		e.File = x.path
		e.Used, _ = disk.FileUsed(x.path)
	}
	return e
}
