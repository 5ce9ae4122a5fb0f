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
	defer c.end()
	err := c.prepare(ctx, o)
	if err == nil {
		err = h.perform(ctx, c.task(op, o))
	}
	if err != nil {
		err = failed(op, strings.TrimSpace("volume "+o.ID), err)
		if c.src.Pool == disk.VolumePool {
			err = h.explain(ctx, c.cluster, c.src, err)
		}
		return disk.Volume{}, err
	}
	v, err := c.cluster.Volume(context.WithoutCancel(ctx), c.dst)
	return v, failed(op, c.dst.String(), err)
}

// cloning is the state that the steps share.
type cloning struct {
	session
	h         *Host
	src       disk.Name // with the snapshot
	dst       disk.Name
	has, want int64
	flat      bool
}

func (c *cloning) prepare(ctx context.Context, o CloneOptions) (err error) {
	if c.cluster, c.dst, err = c.h.newVolume(ctx, o.ID); err != nil {
		return err
	}
	return c.look(ctx, o)
}

// look finds the source and says whether it fits.
func (c *cloning) look(ctx context.Context, o CloneOptions) (err error) {
	if err := c.find(ctx, o); err != nil {
		return err
	}
	if c.want = o.Size; c.want == 0 {
		c.want = disk.RoundUp(c.has)
	}
	if c.want < c.has {
		return badInput("%s is %s, a volume of %s would be smaller", c.src, disk.FormatSize(c.has), disk.FormatSize(c.want))
	}
	return disk.CheckVolumeSize(c.dst, 0, c.want, false)
}

// task leases a volume that is the source: it gets a snapshot. Any number of clones
// can be made from an image, or a snapshot, at once.
func (c *cloning) task(op string, o CloneOptions) task {
	t := task{op: op, object: c.dst.String(), on: &c.session, pool: c.dst.Pool, leases: []string{c.dst.String()},
		steps: func() []step { return c.steps(op, o.Volume != "") }}
	if o.Volume != "" && c.src.Image != c.dst.Image {
		t.leases = append(t.leases, c.src.Pool+"/"+c.src.Image)
	}
	t.check = func(ctx context.Context) error {
		if err := c.cluster.Absent(ctx, c.dst); err != nil {
			return err
		}
		if err := c.look(ctx, o); err != nil || o.Volume == "" {
			return err
		}
		return c.cluster.NoSnapshot(ctx, c.src)
	}
	return t
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
		steps = snapshotSteps(c.cluster, c.src)
	}
	steps = append(steps, step{name: "clone", detail: says(c.src.String() + " → " + c.dst.String() + ", " + disk.FormatSize(c.want)),
		do:   func(ctx context.Context) error { return c.cluster.CloneVolume(ctx, c.src, c.want, c.dst) },
		back: []action{{Verb: actRemove, Image: c.dst.String()}}})
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
	return steps
}

// FlattenVolume copies into a volume what it shares with what it was made from, so
// that it depends on nothing any more. The volume may be attached. Of a volume from
// a volume the source's snapshot goes too, and with it a source that was deleted
// before and kept only for this one; of one that was restored at once from a backup the
// backup's snapshot is protected no more, which takes the key of the user of backups. A
// volume that depends on nothing is [disk.ErrInvalid]. Interrupted, the volume hangs on all that it hung on, or on
// nothing; what else there is to do is done by running it again, or by a repair.
//
// Similar to: rbd flatten.
func (h *Host) FlattenVolume(ctx context.Context, volume string) (disk.Volume, error) {
	const op = "flatten"
	p := &parting{}
	defer p.end()
	if err := p.open(ctx, h, volume); err != nil {
		return disk.Volume{}, failed(op, volume, err)
	}
	var v disk.Volume
	p.look = func(ctx context.Context) (from []disk.Name, err error) {
		if v, err = p.cluster.Volume(ctx, p.name); err != nil {
			return nil, err
		}
		if v.Parent == "" {
			return nil, &disk.Error{Op: op, Object: p.name.String(), Kind: disk.ErrInvalid, Reason: "it depends on nothing already"}
		}
		return p.cluster.Ancestors(ctx, p.name, "")
	}
	err := p.part(ctx, op, false, func() []step {
		return []step{{name: "flatten", commit: true, detail: says(fmt.Sprintf("%s, off %s", p.name, v.Parent)),
			do: func(ctx context.Context) error {
				return p.cluster.Flatten(ctx, p.name, h.shows(op, p.name.String(), "flatten", v.Size))
			},
			on: []action{{Verb: actFlatten, Image: p.name.String()}}}}
	}, "vmdisk volume flatten "+disk.VolumeID(p.name.Image))
	if p.repaired && errors.Is(err, disk.ErrInvalid) { // which has finished it
		return v, nil
	}
	if err != nil {
		return v, h.explain(ctx, p.cluster, p.name, err)
	}
	v, err = p.cluster.Volume(context.WithoutCancel(ctx), p.name)
	return v, failed(op, p.name.String(), err)
}

// finishFlatten finishes a flattening that was interrupted when all was copied, or
// one that the QEMU which has the volume open may be at by itself. Another is as if
// it had never begun.
func finishFlatten(ctx context.Context, cluster *disk.Cluster, n disk.Name) error {
	half, err := cluster.HalfParted(ctx, n)
	if err == nil && !half {
		err = cluster.WaitUnused(ctx, n)
		half = errors.Is(err, disk.ErrInUse)
	}
	if !half {
		return gone(err)
	}
	if err := cluster.Flatten(ctx, n, nil); !errors.Is(err, disk.ErrInvalid) { // it has no parent
		return err
	}
	return nil
}
