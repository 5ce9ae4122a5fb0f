// vmdisk disk create, ls, info, rm

package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/urfave/cli/v2"
	"github.com/vmdisk/vmdisk"
	"github.com/vmdisk/vmdisk/disk"
)

func diskCommand() *cli.Command {
	return &cli.Command{
		Name: "disk", Usage: "root disks without machines, for tools with domains of their own",
		Subcommands: []*cli.Command{
			{
				Name: "create", Usage: "clone an image to UUID_disk",
				Flags: []cli.Flag{
					&cli.StringFlag{Name: "image", Usage: "clone `[POOL/]ID[@SNAP]`"},
					&cli.StringFlag{Name: "size", Usage: "grow to `SIZE`", DefaultText: "the image's"},
					&cli.StringFlag{Name: "uuid", Usage: "`UUID` of the machine that it is for", DefaultText: "new"},
					&cli.IntFlag{Name: "count", Usage: "make `N` disks", Value: 1},
					rawFlag(),
				},
				Action: onHost(runDiskCreate),
			},
			{Name: "ls", Aliases: []string{"list"}, Usage: "list root disks", Action: onHost(runDiskLs)},
			{Name: "info", Usage: "describe a root disk", ArgsUsage: "UUID|IMAGE", Action: onHost(runDiskInfo)},
			{Name: "rm", Usage: "remove root disks that nobody uses", ArgsUsage: "UUID|IMAGE...", Action: onHost(runDiskRm)},
		},
	}
}

func runDiskCreate(ctx context.Context, c *command, h *vmdisk.Host) error {
	if _, err := c.arguments(); err != nil {
		return err
	}
	if c.String("image") == "" {
		return usagef("--image is missing; vmdisk image ls lists them")
	}
	size, err := optionalSize(c.String("size"))
	if err != nil {
		return err
	}
	count := c.Int("count")
	if count < 1 || count > 1 && c.String("uuid") != "" {
		return usagef("--count %d is not at least 1, or is given with --uuid", count)
	}
	if err := oneOf("--format", c.String("format"), "", "raw"); err != nil {
		return err
	}
	disks, err := h.CreateDisks(ctx, count, vmdisk.DiskOptions{
		Image: c.String("image"), Size: size, UUID: c.String("uuid"), Format: c.String("format"),
	})
	for _, d := range disks {
		if err := c.ui.text(d.Name()); err != nil {
			return err
		}
	}
	if err := c.ui.result(disks, ""); err != nil {
		return err
	}
	return err
}

func runDiskLs(ctx context.Context, c *command, h *vmdisk.Host) error {
	if _, err := c.arguments(); err != nil {
		return err
	}
	disks, err := h.Disks(ctx)
	if err != nil {
		return err
	}
	var rows []string
	for _, d := range disks {
		rows = append(rows, fmt.Sprintf("%s\t%s\t%s\t%d\t%s", d.Image, disk.FormatSize(d.Size), disk.FormatSize(d.Used), len(d.Watchers), orDash(d.Parent)))
	}
	return c.ui.table(disks, "no disks", "IMAGE\tSIZE\tUSED\tOPEN\tPARENT", rows)
}

func runDiskInfo(ctx context.Context, c *command, h *vmdisk.Host) error {
	args, err := c.arguments("UUID|IMAGE")
	if err != nil {
		return err
	}
	d, err := h.Disk(ctx, args[0])
	if err != nil {
		return err
	}
	var watchers []string
	for _, w := range d.Watchers {
		watchers = append(watchers, w.String())
	}
	return c.ui.result(d, "image   %s\nsize    %s\nused    %s\nparent  %s\nopen    %s", d.Name(),
		disk.FormatSize(d.Size), disk.FormatSize(d.Used), orDash(d.Parent), orDash(strings.Join(watchers, ", ")))
}

func runDiskRm(ctx context.Context, c *command, h *vmdisk.Host) error {
	args, err := c.several("UUID|IMAGE")
	if err != nil {
		return err
	}
	return doMany(c, args, func(spec string) (map[string]string, error) {
		return map[string]string{"image": spec}, h.RemoveDisk(ctx, spec)
	}, func(r map[string]string) string { return r["image"] + " is removed" })
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
