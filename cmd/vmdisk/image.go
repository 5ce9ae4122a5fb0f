// vmdisk image import, ls, info, rm

package main

import (
	"context"
	"fmt"

	"github.com/urfave/cli/v2"
	"github.com/vmdisk/vmdisk"
	"github.com/vmdisk/vmdisk/disk"
)

func imageCommand() *cli.Command {
	return &cli.Command{
		Name: "image", Usage: "images that machines boot from",
		Subcommands: []*cli.Command{
			{
				Name: "import", Usage: "copy a raw or qcow2 file into Ceph, verified and ready to clone", ArgsUsage: "FILE",
				Flags: []cli.Flag{
					&cli.StringFlag{Name: "name", Usage: "`ID` of the image", DefaultText: "the file's name without suffix"},
					&cli.StringFlag{Name: "format", Usage: "`FORMAT` of the file: raw or qcow2", DefaultText: "by its first bytes"},
					&cli.StringFlag{Name: "max-size", Usage: "refuse a virtual size above `SIZE`", DefaultText: "2T"},
				},
				Action: onHost(runImageImport),
			},
			{Name: "ls", Aliases: []string{"list"}, Usage: "list images", Action: onHost(runImageLs)},
			{Name: "info", Usage: "describe an image", ArgsUsage: "ID", Action: onHost(runImageInfo)},
			{Name: "rm", Usage: "remove an image that has no clones", ArgsUsage: "ID", Action: onHost(runImageRm)},
		},
	}
}

func runImageImport(ctx context.Context, c *command, h *vmdisk.Host) error {
	args, err := c.arguments("FILE")
	if err != nil {
		return err
	}
	if err := oneOf("--format", c.String("format"), "", "raw", "qcow2"); err != nil {
		return err
	}
	limit, err := optionalSize(c.String("max-size"))
	if err != nil {
		return err
	}
	if c.IsSet("name") && c.String("name") == "" {
		return usagef("--name is empty")
	}
	image, err := h.ImportImage(ctx, args[0], vmdisk.ImportOptions{
		ID: c.String("name"), Format: c.String("format"), MaxSize: limit,
	})
	if err != nil {
		return err
	}
	return c.ui.result(image, "%s is ready to clone, %s with %s of data", image.Name(),
		disk.FormatSize(image.Size), disk.FormatSize(image.Used))
}

func runImageLs(ctx context.Context, c *command, h *vmdisk.Host) error {
	if _, err := c.arguments(); err != nil {
		return err
	}
	images, err := h.Images(ctx)
	if err != nil {
		return err
	}
	var rows []string
	for _, i := range images {
		rows = append(rows, fmt.Sprintf("%s\t%s\t%s\t%s", i.ID, disk.FormatSize(i.Size), disk.FormatSize(i.Used), snapState(i)))
	}
	return c.ui.table(images, "no images; vmdisk image import FILE makes one", "ID\tSIZE\tUSED\tSNAPSHOT", rows)
}

func snapState(i disk.Image) string {
	switch {
	case i.Snapshot == "":
		return "none"
	case !i.Protected:
		return i.Snapshot + " (unprotected)"
	}
	return i.Snapshot
}

func runImageInfo(ctx context.Context, c *command, h *vmdisk.Host) error {
	args, err := c.arguments("ID")
	if err != nil {
		return err
	}
	i, err := h.Image(ctx, args[0])
	if err != nil {
		return err
	}
	return c.ui.result(i, "id        %s\npool      %s\nsize      %s\nused      %s\nsnapshot  %s\nurl       %s",
		i.ID, i.Pool, disk.FormatSize(i.Size), disk.FormatSize(i.Used), snapState(i), i.URL)
}

func runImageRm(ctx context.Context, c *command, h *vmdisk.Host) error {
	args, err := c.arguments("ID")
	if err != nil {
		return err
	}
	if err := h.RemoveImage(ctx, args[0]); err != nil {
		return err
	}
	return c.ui.result(map[string]string{"id": args[0]}, "%s is removed", args[0])
}
