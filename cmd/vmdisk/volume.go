// vmdisk volume create, clone, ls, info, resize, flatten

package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/urfave/cli/v2"
	"github.com/vmdisk/vmdisk"
	"github.com/vmdisk/vmdisk/disk"
)

func volumeCommand() *cli.Command {
	size := &cli.StringFlag{Name: "size", Usage: "`SIZE` of the volume, whole GiB", DefaultText: "the source's"}
	flatten := &cli.BoolFlag{Name: "flatten", Usage: "copy everything: depend on nothing"}
	count := &cli.IntFlag{Name: "count", Usage: "make `N` volumes, ID-1 to ID-N", Value: 1}
	return &cli.Command{
		Name: "volume", Usage: "disks that outlive machines",
		Description: "A VOLUME is its ID, volume-ID, or POOL/IMAGE.",
		Subcommands: []*cli.Command{
			{
				Name: "create", Usage: "make a volume, empty or from something", ArgsUsage: "[ID] --size SIZE",
				Description: "Example: vmdisk volume create data1 --size 10G\n" +
					"         vmdisk volume create --image debian-12 --size 20G\n" +
					"         vmdisk volume create --snapshot data1@monday",
				Flags: []cli.Flag{
					size,
					&cli.StringFlag{Name: "name", Usage: "`ID` of the volume", DefaultText: "new UUID"},
					&cli.StringFlag{Name: "image", Usage: "make it from `[POOL/]ID[@SNAP]`"},
					&cli.StringFlag{Name: "snapshot", Usage: "make it from `VOLUME@SNAP`, or a snapshot's ID"},
					&cli.StringFlag{Name: "volume", Usage: "make it from `VOLUME`, which may be attached"},
					flatten, count,
				},
				Action: onHost(runVolumeCreate),
			},
			{
				Name: "clone", Usage: "make a volume from another, or from a snapshot of it", ArgsUsage: "VOLUME[@SNAP] [ID]",
				Description: "The clone shares with its source what neither changes. A chain of clones\n" +
					"deeper than --max-clone-depth is ended by copying everything.",
				Flags:  []cli.Flag{size, flatten, count},
				Action: onHost(runVolumeClone),
			},
			{
				Name: "ls", Aliases: []string{"list"}, Usage: "list volumes",
				Flags:  []cli.Flag{&cli.BoolFlag{Name: "trash", Usage: "those in the trash"}},
				Action: onHost(runVolumeLs),
			},
			{Name: "info", Usage: "describe a volume, its snapshots, and who has it open", ArgsUsage: "VOLUME", Action: onHost(runVolumeInfo)},
			{
				Name: "resize", Usage: "grow a volume, also while a machine uses it", ArgsUsage: "VOLUME SIZE",
				Description: "SIZE is the new size (20G) or how much to grow by (+10G), in whole GiB.",
				Flags:       []cli.Flag{&cli.BoolFlag{Name: "allow-shrink", Usage: "cut off what is beyond SIZE"}},
				Action:      onHost(runVolumeResize),
			},
			{Name: "flatten", Usage: "copy what a volume shares with its source, to depend on nothing", ArgsUsage: "VOLUME", Action: onHost(runVolumeFlatten)},
			volumeRmCommand(), volumeRestoreCommand(), volumePurgeCommand(), volumeQoSCommand(), volumeSnapshotCommand(),
		},
	}
}

func runVolumeCreate(ctx context.Context, c *command, h *vmdisk.Host) error {
	id := c.String("name")
	if c.Args().Present() {
		args, err := c.arguments("ID")
		if err != nil {
			return err
		}
		if id != "" {
			return usagef("the ID is given twice, as %q and --name %q", args[0], id)
		}
		id = args[0]
	}
	o := vmdisk.CloneOptions{Image: c.String("image"), Snapshot: c.String("snapshot"), Volume: c.String("volume")}
	if o.Image == "" && o.Snapshot == "" && o.Volume == "" && c.String("size") == "" {
		return usagef("--size is missing, such as --size 10G")
	}
	return makeVolumes(ctx, c, h, id, o)
}

func runVolumeClone(ctx context.Context, c *command, h *vmdisk.Host) error {
	args := append(c.Args().Slice(), "")
	if c.Args().Len() != 2 {
		if _, err := c.arguments("VOLUME[@SNAP]"); err != nil {
			return err
		}
	}
	if strings.Contains(args[0], "@") {
		return makeVolumes(ctx, c, h, args[1], vmdisk.CloneOptions{Snapshot: args[0]})
	}
	return makeVolumes(ctx, c, h, args[1], vmdisk.CloneOptions{Volume: args[0]})
}

// makeVolumes makes as many as --count says, empty ones if o has no source.
func makeVolumes(ctx context.Context, c *command, h *vmdisk.Host, id string, o vmdisk.CloneOptions) (err error) {
	if o.Size, err = optionalSize(c.String("size")); err != nil {
		return err
	}
	o.Flatten = c.Bool("flatten")
	count := c.Int("count")
	if count < 1 {
		return usagef("--count %d is not at least 1", count)
	}
	make1 := func(i int) (disk.Volume, error) {
		o := o
		o.ID = id
		if id != "" && count > 1 {
			o.ID = fmt.Sprintf("%s-%d", id, i+1)
		}
		if o.Image == "" && o.Snapshot == "" && o.Volume == "" {
			return h.CreateVolume(ctx, o.ID, o.Size)
		}
		return h.CloneVolume(ctx, o)
	}
	if !c.IsSet("count") {
		v, err := make1(0)
		if err != nil {
			return err
		}
		return c.ui.result(v, "%s", v.ID)
	}
	made, err := makeMany(count, make1)
	for _, v := range made {
		if err := c.ui.text(v.ID); err != nil {
			return err
		}
	}
	if err := c.ui.result(made, ""); err != nil {
		return err
	}
	return err
}

func runVolumeLs(ctx context.Context, c *command, h *vmdisk.Host) error {
	if _, err := c.arguments(); err != nil {
		return err
	}
	if c.Bool("trash") {
		return listTrashedVolumes(ctx, c, h)
	}
	volumes, err := h.Volumes(ctx)
	if err != nil {
		return err
	}
	var rows []string
	for _, v := range volumes {
		rows = append(rows, fmt.Sprintf("%s\t%s\t%s\t%d\t%s\t%s", v.ID, disk.FormatSize(v.Size), disk.FormatSize(v.Used),
			len(v.Watchers), attachedTo(v), orDash(v.Parent)))
	}
	return c.ui.table(volumes, "no volumes", "ID\tSIZE\tUSED\tOPEN\tATTACHED TO\tPARENT", rows)
}

func attachedTo(v disk.Volume) string {
	switch {
	case v.Attached != nil:
		return v.Attached.VM + " on " + v.Attached.Host
	case v.Deleted:
		return "(deleted, kept for its clones)"
	}
	return "-"
}

func runVolumeInfo(ctx context.Context, c *command, h *vmdisk.Host) error {
	args, err := c.arguments("VOLUME")
	if err != nil {
		return err
	}
	v, err := h.Volume(ctx, args[0])
	if err != nil {
		return err
	}
	return c.ui.result(v, "%s", describeVolume(v))
}

func describeVolume(v disk.VolumeDetail) string {
	var b strings.Builder
	line := func(key, format string, args ...any) { fmt.Fprintf(&b, "%-9s %s\n", key, fmt.Sprintf(format, args...)) }
	line("volume", "%s", v.Name())
	line("size", "%s, %s used", disk.FormatSize(v.Size), disk.FormatSize(v.Used))
	parent := orDash(v.Parent)
	if v.ParentTrash {
		parent += " (in the trash)"
	}
	line("parent", "%s", parent)
	line("depth", "%d", v.Depth)
	line("objects", "%s", disk.FormatSize(v.ObjectSize))
	line("features", "%s", strings.Join(v.Features, ", "))
	line("attached", "%s", attachedTo(v.Volume))
	for _, w := range v.Watchers {
		line("open", "%s", strings.TrimPrefix(w.String(), "open "))
	}
	for _, s := range v.Snapshots {
		line("snapshot", "%s", describeSnapshot(s))
	}
	return strings.TrimSuffix(b.String(), "\n")
}

func describeSnapshot(s disk.Snapshot) string {
	text := fmt.Sprintf("%s, %s, %s", s.Name, s.Created.Local().Format("2006-01-02 15:04"), disk.FormatSize(s.Size))
	if s.Protected {
		text += ", protected"
	}
	if len(s.Clones) > 0 {
		text += ", clones: " + strings.Join(s.Clones, " ")
	}
	return text
}

func runVolumeResize(ctx context.Context, c *command, h *vmdisk.Host) error {
	args, err := c.arguments("VOLUME", "SIZE")
	if err != nil {
		return err
	}
	size, by, err := parseGrowth(args[1])
	if err != nil {
		return err
	}
	v, err := h.ResizeVolume(ctx, args[0], vmdisk.VolumeSize{Size: size, By: by, AllowShrink: c.Bool("allow-shrink")})
	if err != nil {
		return err
	}
	return c.ui.result(v, "%s is %s", v.Name(), disk.FormatSize(v.Size))
}

func runVolumeFlatten(ctx context.Context, c *command, h *vmdisk.Host) error {
	args, err := c.arguments("VOLUME")
	if err != nil {
		return err
	}
	v, err := h.FlattenVolume(ctx, args[0])
	if err != nil {
		return err
	}
	return c.ui.result(v, "%s depends on nothing", v.Name())
}
