// vmdisk volume snapshot create, ls, rm, rollback

package main

import (
	"context"
	"fmt"

	"github.com/urfave/cli/v2"
	"github.com/vmdisk/vmdisk"
	"github.com/vmdisk/vmdisk/disk"
)

func volumeSnapshotCommand() *cli.Command {
	return &cli.Command{
		Name: "snapshot", Aliases: []string{"snap"}, Usage: "snapshots of volumes",
		Description: "A SNAPSHOT is VOLUME@SNAP, VOLUME SNAP, or its ID alone.",
		Subcommands: []*cli.Command{
			{
				Name: "create", Usage: "take a protected snapshot, also while a machine uses the volume", ArgsUsage: "VOLUME [ID]",
				Description: "Example: vmdisk volume snapshot create data1 monday",
				Action:      onHost(runSnapshotCreate),
			},
			{Name: "ls", Aliases: []string{"list"}, Usage: "list a volume's snapshots, with their clones", ArgsUsage: "VOLUME", Action: onHost(runSnapshotLs)},
			{Name: "rm", Usage: "remove a snapshot without clones", ArgsUsage: "SNAPSHOT", Action: onHost(runSnapshotRm)},
			{
				Name: "rollback", Usage: "give a volume that nobody uses the content of a snapshot again", ArgsUsage: "SNAPSHOT",
				Description: "What was written since is lost. The time is in proportion to the volume's size; a\n" +
					"clone of the snapshot (vmdisk volume clone VOLUME@SNAP) takes none.",
				Action: onHost(runSnapshotRollback),
			},
		},
	}
}

// volumeAnd are a volume and, perhaps, another word.
func volumeAnd(c *command, other string) (volume, second string, err error) {
	if c.Args().Len() == 2 {
		return c.Args().Get(0), c.Args().Get(1), nil
	}
	args, err := c.arguments(other)
	if err != nil {
		return "", "", err
	}
	return args[0], "", nil
}

func runSnapshotCreate(ctx context.Context, c *command, h *vmdisk.Host) error {
	volume, id, err := volumeAnd(c, "VOLUME")
	if err != nil {
		return err
	}
	s, err := h.CreateVolumeSnapshot(ctx, volume, id)
	if err != nil {
		return err
	}
	return c.ui.result(s, "%s", s.ID)
}

func runSnapshotLs(ctx context.Context, c *command, h *vmdisk.Host) error {
	args, err := c.arguments("VOLUME")
	if err != nil {
		return err
	}
	all, err := h.VolumeSnapshots(ctx, args[0])
	if err != nil {
		return err
	}
	var rows []string
	for _, s := range all {
		protected := "no"
		if s.Protected {
			protected = "yes"
		}
		rows = append(rows, fmt.Sprintf("%s\t%s\t%s\t%s\t%s\t%d", s.ID, s.Kind, disk.FormatSize(s.Size), minute(s.Created), protected, len(s.Clones)))
	}
	return c.ui.table(all, "no snapshots", "ID\tKIND\tSIZE\tCREATED\tPROTECTED\tCLONES", rows)
}

// snapshotSpec is the snapshot that the arguments name.
func snapshotSpec(c *command) (string, error) {
	first, second, err := volumeAnd(c, "SNAPSHOT")
	if second != "" {
		return first + "@" + second, err
	}
	return first, err
}

func runSnapshotRm(ctx context.Context, c *command, h *vmdisk.Host) error {
	spec, err := snapshotSpec(c)
	if err != nil {
		return err
	}
	if err := h.RemoveVolumeSnapshot(ctx, spec); err != nil {
		return err
	}
	return c.ui.result(map[string]string{"id": spec}, "%s is removed", spec)
}

func runSnapshotRollback(ctx context.Context, c *command, h *vmdisk.Host) error {
	spec, err := snapshotSpec(c)
	if err != nil {
		return err
	}
	v, err := h.RollbackVolume(ctx, spec)
	if err != nil {
		return err
	}
	return c.ui.result(v, "%s is as it was at %s", v.Name(), spec)
}
