// A volume from something: an image, a snapshot, another volume; and flattening,
// which makes it independent of what it came from.

package vmdisk

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/vmdisk/vmdisk/disk"
)

// DefaultCloneDepth is how many volumes deep a chain of clones may get. Source:
// cinder, rbd_max_clone_depth.
const DefaultCloneDepth = 5

// CloneOptions say what to make a volume from. Exactly one of Image, Snapshot and
// Volume is given.
type CloneOptions struct {
	ID       string // of the new volume; "" is a new UUID
	Image    string // [POOL/]ID[@SNAP]
	Snapshot string // VOLUME@SNAP, or a snapshot's ID
	Volume   string // its ID, volume-ID or POOL/IMAGE; it may be attached
	Size     int64  // bytes, whole GiB; 0 is the source's, rounded up to GiB
	// Flatten copies everything, so that the new volume depends on nothing.
	Flatten bool
}

// CloneVolume makes a volume from an image, a snapshot or a volume, sharing what
// it does not change with it. From a volume it is made in Cinder's way: over a
// protected snapshot NEWIMAGE.clone_snap of the source, and flattened, without that
// snapshot, where the source's chain is [Config.MaxCloneDepth] deep already. The
// snapshot of a volume that is attached holds what a power cut would leave.
// Flattening takes a time in proportion to the size; the rest none. On failure
// nothing is left.
//
// What is larger than Size is [disk.ErrInvalid]; a source that is not there
// [disk.ErrNotFound], a snapshot that is not protected [disk.ErrNotProtected].
//
// Similar to: rbd snap create, rbd snap protect, rbd clone, rbd resize, rbd flatten.
func (h *Host) CloneVolume(ctx context.Context, o CloneOptions) (disk.Volume, error) {
	const op = "create"
	c := &cloning{h: h, flat: o.Flatten}
	if err := c.prepare(ctx, o); err != nil {
		err = failed(op, strings.TrimSpace("volume "+o.ID), err)
		if c.src.Pool == disk.VolumePool {
			err = h.explain(ctx, c.cluster, c.src, err)
		}
		return disk.Volume{}, err
	}
	if err := h.run(ctx, op, c.dst.String(), c.steps(op, o.Volume != "")...); err != nil {
		return disk.Volume{}, err
	}
	v, err := c.cluster.Volume(context.WithoutCancel(ctx), c.dst)
	return v, failed(op, c.dst.String(), err)
}

// cloning is the state that the steps share.
type cloning struct {
	h         *Host
	cluster   *disk.Cluster
	src       disk.Name // with the snapshot
	dst       disk.Name
	has, want int64
	flat      bool
	snapOurs  bool
	ours      bool
}

func (c *cloning) prepare(ctx context.Context, o CloneOptions) (err error) {
	if c.cluster, c.dst, err = c.h.newVolume(ctx, o.ID); err != nil {
		return err
	}
	if err := c.find(ctx, o); err != nil {
		return err
	}
	c.want = o.Size
	if c.want == 0 {
		c.want = disk.RoundUp(c.has)
	}
	if c.want < c.has {
		return badInput("%s is %s, a volume of %s would be smaller", c.src, disk.FormatSize(c.has), disk.FormatSize(c.want))
	}
	if err := disk.CheckVolumeSize(c.dst, 0, c.want, false); err != nil {
		return err
	}
	return c.cluster.Absent(ctx, c.dst)
}

// find reads the source's size and whether its chain is too deep for another.
func (c *cloning) find(ctx context.Context, o CloneOptions) (err error) {
	switch {
	case o.Image != "" && o.Snapshot == "" && o.Volume == "":
		c.src, err = disk.ParseImage(o.Image)
	case o.Snapshot != "" && o.Image == "" && o.Volume == "":
		c.src, err = c.h.findSnapshot(ctx, c.cluster, o.Snapshot)
	case o.Volume != "" && o.Image == "" && o.Snapshot == "":
		return c.findVolume(ctx, o.Volume)
	default:
		return badInput("a volume is made from one of an image, a snapshot and a volume")
	}
	if err == nil {
		c.has, err = c.cluster.SnapshotSize(ctx, c.src)
	}
	return err
}

func (c *cloning) findVolume(ctx context.Context, volume string) (err error) {
	if c.src, err = disk.ParseVolume(volume); err != nil {
		return err
	}
	if err := c.cluster.CheckVolume(ctx, c.src); err != nil {
		return err
	}
	if c.has, err = c.cluster.Size(ctx, c.src); err != nil {
		return err
	}
	depth, err := c.cluster.CloneDepth(ctx, c.src)
	c.flat = c.flat || depth >= c.h.cfg.MaxCloneDepth
	c.src.Snap = disk.CloneSnapshot(c.dst.Image)
	return err
}

func (c *cloning) steps(op string, fromVolume bool) []step {
	var steps []step
	if fromVolume {
		steps = append(steps,
			step{name: "snapshot", detail: c.src.String, do: c.snapshot, undo: c.removeSnapshot},
			step{name: "protect", detail: c.src.String, do: func(ctx context.Context) error { return c.cluster.ProtectSnapshot(ctx, c.src) }})
	}
	steps = append(steps, step{name: "clone", detail: says(c.src.String() + " → " + c.dst.String()), do: c.clone, undo: c.removeClone})
	if c.flat {
		steps = append(steps, step{name: "flatten", detail: c.dst.String, do: func(ctx context.Context) error {
			return c.cluster.Flatten(ctx, c.dst, c.h.shows(op, c.dst.String(), "flatten", c.has))
		}})
	}
	if c.flat && fromVolume {
		steps = append(steps, step{name: "drop", detail: c.src.String, do: func(ctx context.Context) error {
			return c.cluster.RemoveSnapshot(ctx, c.src)
		}})
	}
	if c.want > c.has {
		steps = append(steps, step{name: "grow", detail: says(disk.FormatSize(c.has) + " → " + disk.FormatSize(c.want)),
			do: func(ctx context.Context) error { _, err := c.cluster.Grow(ctx, c.dst, c.want); return err }})
	}
	return steps
}

func (c *cloning) snapshot(ctx context.Context) error {
	err := c.cluster.CreateSnapshot(ctx, c.src)
	c.snapOurs = !errors.Is(err, disk.ErrExists)
	return err
}

// removeSnapshot also takes the protection back.
func (c *cloning) removeSnapshot(ctx context.Context) error {
	if !c.snapOurs {
		return errNothing
	}
	return gone(c.cluster.RemoveSnapshot(ctx, c.src))
}

func (c *cloning) clone(ctx context.Context) error {
	err := c.cluster.CloneVolume(ctx, c.src, c.dst)
	c.ours = !errors.Is(err, disk.ErrExists)
	return err
}

func (c *cloning) removeClone(ctx context.Context) error {
	if !c.ours {
		return errNothing
	}
	return c.cluster.RemoveDisk(ctx, c.dst)
}

// FlattenVolume copies into a volume what it shares with what it was made from, so
// that it depends on nothing any more. The volume may be attached. Of a volume from
// a volume the source's snapshot goes too, and with it a source that was deleted
// before and kept only for this one. A volume that depends on nothing is
// [disk.ErrInvalid]. Interrupted, it is finished by running it again.
//
// Similar to: rbd flatten.
func (h *Host) FlattenVolume(ctx context.Context, volume string) (disk.Volume, error) {
	const op = "flatten"
	cluster, name, err := h.volumeName(ctx, volume)
	if err != nil {
		return disk.Volume{}, failed(op, volume, err)
	}
	v, err := cluster.Volume(ctx, name)
	if err != nil {
		return v, h.explain(ctx, cluster, name, failed(op, name.String(), err))
	}
	p, err := h.newParting(ctx, cluster, name, "")
	if err == nil && v.Parent == "" && !p.begun {
		err = &disk.Error{Op: op, Object: name.String(), Kind: disk.ErrInvalid, Reason: "it depends on nothing already"}
	}
	if err != nil {
		return v, failed(op, name.String(), err)
	}
	var work []step
	if v.Parent != "" {
		work = []step{{name: "flatten", detail: says(fmt.Sprintf("%s, off %s", name, v.Parent)), do: func(ctx context.Context) error {
			return cluster.Flatten(ctx, name, h.shows(op, name.String(), "flatten", v.Size))
		}}}
	}
	if err := h.run(ctx, op, name.String(), p.around(work)...); err != nil {
		return v, p.unfinished(err, "vmdisk volume flatten "+disk.VolumeID(name.Image))
	}
	v, err = cluster.Volume(context.WithoutCancel(ctx), name)
	return v, failed(op, name.String(), err)
}
