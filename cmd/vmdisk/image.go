// vmdisk image import, ls, info, rm

package main

import (
	"context"
	"fmt"
	"strings"

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
			imageCreateCommand(),
			{
				Name: "ls", Aliases: []string{"list"}, Usage: "list images",
				Flags:  []cli.Flag{&cli.BoolFlag{Name: "trash", Usage: "those in the trash"}},
				Action: onHost(runImageLs),
			},
			{Name: "info", Usage: "describe an image", ArgsUsage: "ID", Action: onHost(runImageInfo)},
			{
				Name: "export", Usage: "copy an image to a raw or qcow2 file, or to standard output", ArgsUsage: "ID FILE|-",
				Description: "The file is sparse, gets its name when it is whole, and replaces none.\n" +
					"vmdisk image export debian-12 debian-12.qcow2",
				Flags: []cli.Flag{
					&cli.StringFlag{Name: "format", Usage: "`FORMAT` of the file: raw or qcow2", DefaultText: "by its name, else raw"},
					&cli.StringFlag{Name: "checksum", Usage: "tell the `HASH` of the image's bytes: md5, sha256 or sha512"},
					&cli.BoolFlag{Name: "force", Usage: "replace a file that exists"},
				},
				Action: onHost(runImageExport),
			},
			imageRmCommand(), imageRestoreCommand(), imagePurgeCommand(),
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
	if c.Bool("trash") {
		return listTrashedImages(ctx, c, h)
	}
	images, err := h.Images(ctx)
	if err != nil {
		return err
	}
	var rows []string
	for _, i := range images {
		rows = append(rows, fmt.Sprintf("%s\t%s\t%s\t%s\t%s", i.ID, disk.FormatSize(i.Size), disk.FormatSize(i.Used), snapState(i), i.Format))
	}
	return c.ui.table(images, "no images; vmdisk image import FILE makes one", "ID\tSIZE\tUSED\tSNAPSHOT\tFORMAT", rows)
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
	return c.ui.result(i, "id        %s\npool      %s\nsize      %s\nused      %s\nsnapshot  %s\nformat    %s\nurl       %s",
		i.ID, i.Pool, disk.FormatSize(i.Size), disk.FormatSize(i.Used), snapState(i), i.Format, i.URL)
}

func runImageExport(ctx context.Context, c *command, h *vmdisk.Host) error {
	args, err := c.arguments("ID", "FILE")
	if err != nil {
		return err
	}
	if err := oneOf("--format", c.String("format"), "", "raw", "qcow2"); err != nil {
		return err
	}
	if err := oneOf("--checksum", c.String("checksum"), "", "md5", "sha256", "sha512"); err != nil {
		return err
	}
	o := vmdisk.ExportOptions{Format: c.String("format"), Force: c.Bool("force"), Checksum: c.String("checksum")}
	if args[1] != "-" {
		e, err := h.ExportImage(ctx, args[0], args[1], o)
		if err != nil {
			return err
		}
		return c.ui.result(e, "%s is in %s, %s, %s on disk%s", e.ID, e.File, e.Format, disk.FormatSize(e.Used), checksumLine(c, e))
	}
	if terminal(c.ui.out) {
		return usagef("standard output is a terminal; redirect it, or name a FILE")
	}
	o.Writer = c.ui.out
	e, err := h.ExportImage(ctx, args[0], "", o)
	if err != nil || e.Checksum == "" {
		return err
	}
	// Standard output has the image.
	_, err = fmt.Fprintln(c.ui.err, strings.TrimSpace(checksumLine(c, e)))
	return err
}

func checksumLine(c *command, e vmdisk.Exported) string {
	if e.Checksum == "" {
		return ""
	}
	return "\n" + c.String("checksum") + "  " + e.Checksum
}
