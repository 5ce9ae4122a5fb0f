// vmdisk volume create, ls, rm

package main

import (
	"context"
	"fmt"

	"github.com/urfave/cli/v2"
	"github.com/vmdisk/vmdisk"
	"github.com/vmdisk/vmdisk/disk"
)

func volumeCommand() *cli.Command {
	return &cli.Command{
		Name: "volume", Usage: "disks that outlive machines",
		Subcommands: []*cli.Command{
			{
				Name: "create", Usage: "make an empty volume", ArgsUsage: "[ID]",
				Flags: []cli.Flag{
					&cli.StringFlag{Name: "size", Usage: "`SIZE` of the volume, whole GiB", Required: false},
					&cli.StringFlag{Name: "name", Usage: "`ID` of the volume", DefaultText: "new UUID"},
				},
				Action: onHost(runVolumeCreate),
			},
			{Name: "ls", Aliases: []string{"list"}, Usage: "list volumes", Action: onHost(runVolumeLs)},
			{Name: "rm", Usage: "remove a volume that nobody uses", ArgsUsage: "VOLUME", Action: onHost(runVolumeRm)},
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
	if c.String("size") == "" {
		return usagef("--size is missing, such as --size 10G")
	}
	size, err := parseSize(c.String("size"))
	if err != nil {
		return err
	}
	v, err := h.CreateVolume(ctx, id, size)
	if err != nil {
		return err
	}
	return c.ui.result(v, "%s", v.ID)
}

func runVolumeLs(ctx context.Context, c *command, h *vmdisk.Host) error {
	if _, err := c.arguments(); err != nil {
		return err
	}
	volumes, err := h.Volumes(ctx)
	if err != nil {
		return err
	}
	var rows []string
	for _, v := range volumes {
		owner := "-"
		if v.Attached != nil {
			owner = v.Attached.VM + " on " + v.Attached.Host
		}
		rows = append(rows, fmt.Sprintf("%s\t%s\t%s", v.ID, disk.FormatSize(v.Size), owner))
	}
	return c.ui.table(volumes, "no volumes", "ID\tSIZE\tATTACHED TO", rows)
}

func runVolumeRm(ctx context.Context, c *command, h *vmdisk.Host) error {
	args, err := c.arguments("VOLUME")
	if err != nil {
		return err
	}
	if err := h.RemoveVolume(ctx, args[0]); err != nil {
		return err
	}
	return c.ui.result(map[string]string{"id": args[0]}, "%s is removed", args[0])
}
