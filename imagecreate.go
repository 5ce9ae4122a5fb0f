// CreateImage: a machine's root disk as a new image, while the machine runs.

package vmdisk

import (
	"context"
	"errors"
	"slices"

	"github.com/google/uuid"
	"github.com/vmdisk/vmdisk/disk"
)

// CreateImageOptions say what a machine's disk becomes.
type CreateImageOptions struct {
	ID string // the image's name, [POOL/]ID; "" is a new UUID
}

// CreateImage makes an image of a machine's root disk as it is at one moment. A
// running guest's filesystems are frozen for that moment if its agent answers, for
// 10 s at most (what it then could not be, an event says), and it goes on while the
// data is copied; Progress events tell how far that is. The image is there, with its protected snapshot, when it is whole.
// On failure, or if ctx ends, nothing is left.
//
// An ID that exists is [disk.ErrExists], one that is being made [disk.ErrInUse]. The
// user needs the right to write to the pool of images, else it is
// [disk.ErrPermission].
//
// Similar to: openstack server image create; rbd snap create, clone, flatten.
// Source: nova, virt/libvirt/imagebackend.py, Rbd.direct_snapshot.
func (h *Host) CreateImage(ctx context.Context, vm string, o CreateImageOptions) (disk.Image, error) {
	const op = "image create"
	if o.ID == "" {
		o.ID = uuid.NewString()
	}
	name, err := disk.ParseImageID(o.ID)
	if err != nil {
		return disk.Image{}, failed(op, o.ID, err)
	}
	c := &capture{importing: importing{h: h, name: name}}
	defer c.end()
	if err := c.prepare(ctx, vm); err != nil {
		return disk.Image{}, failed(op, vm, err)
	}
	t := h.onMachine(&c.session, op, c.still.vm, name.String())
	t.object, t.check, t.steps = name.Image, c.check, c.steps
	if err := h.perform(ctx, t); err != nil {
		return disk.Image{}, err
	}
	image, err := c.importing.cluster.Image(context.WithoutCancel(ctx), name)
	return image, failed(op, vm, err)
}

// capture is the state that the steps share: that of an import, whose source is a
// snapshot.
type capture struct {
	session
	importing
	still *still
}

func (c *capture) prepare(ctx context.Context, vm string) error {
	info, err := c.find(ctx, c.h, vm)
	if err != nil {
		return err
	}
	c.importing.cluster = c.session.cluster
	root, _, err := rootOf(info)
	if err != nil {
		return err
	}
	root.Snap = disk.CaptureSnapshot(c.name.Image)
	c.still = &still{session: &c.session, h: c.h, op: "image create", object: c.name.Image, vm: info, name: root}
	return nil
}

// check looks again, now that nobody else changes the machine or makes that image.
func (c *capture) check(ctx context.Context) (err error) {
	if c.still.vm, err = findOwn(ctx, c.session.cluster, c.conn, c.still.vm.UUID); err != nil {
		return err
	}
	root := c.still.name
	root.Snap = ""
	if err := c.h.whole(ctx, c.session.cluster, c.still.vm.Name, root); err != nil {
		return err
	}
	return c.session.cluster.Absent(ctx, c.name)
}

func (c *capture) steps() []step {
	from := c.still.name
	return slices.Concat(c.still.steps(), []step{
		{name: "protect", detail: says(from.String()), do: func(ctx context.Context) error { return c.session.cluster.ProtectSnapshot(ctx, from) }},
		{name: "clone", detail: says(c.name.String()), back: c.unmake(),
			do: func(ctx context.Context) error {
				c.reserve()
				return c.session.cluster.BeginClone(ctx, from, c.name)
			}},
		{name: "flatten", detail: says(c.name.String()), do: c.flatten},
		{name: "drop", detail: says(from.String()), do: c.drop},
	}, c.release())
}

func (c *capture) flatten(ctx context.Context) error {
	size, err := c.session.cluster.Size(ctx, c.still.name)
	if err != nil {
		return err
	}
	return c.session.cluster.Flatten(ctx, disk.PartName(c.name), c.h.shows("image create", c.name.Image, "flatten", size))
}

// drop removes the snapshot that the image came from, and those of tries before
// this one that were killed. It is not needed any more.
func (c *capture) drop(ctx context.Context) error {
	err := c.session.cluster.DropCaptures(ctx, c.still.name, c.name.Image)
	if errors.Is(err, disk.ErrNotFound) {
		return nil
	}
	return err
}
