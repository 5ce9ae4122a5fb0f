// vmdisk image rm, restore, purge, ls --trash

package main

import (
	"context"

	"github.com/urfave/cli/v2"
	"github.com/vmdisk/vmdisk"
)

func imageRmCommand() *cli.Command {
	return &cli.Command{
		Name: "rm", Usage: "remove an image that has no clones", ArgsUsage: "ID",
		Description: "vmdisk image rm debian-11\nvmdisk image rm debian-11 --trash --expires 30d",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "trash", Usage: "into the trash, to be restored or purged"},
			&cli.StringFlag{Name: "expires", Usage: "with --trash, not to be purged for `TIME` (14d, 12h)", Value: "14d"},
		},
		Action: onHost(runImageRm),
	}
}

func imageRestoreCommand() *cli.Command {
	return &cli.Command{Name: "restore", Usage: "take an image out of the trash", ArgsUsage: "ID", Action: onHost(runImageRestore)}
}

func imagePurgeCommand() *cli.Command {
	return &cli.Command{
		Name: "purge", Usage: "remove for good an image that is in the trash", ArgsUsage: "ID",
		Flags:  []cli.Flag{&cli.BoolFlag{Name: "force", Aliases: []string{"f"}, Usage: "also before it has expired"}},
		Action: onHost(runImagePurge),
	}
}

func runImageRm(ctx context.Context, c *command, h *vmdisk.Host) error {
	args, err := c.arguments("ID")
	if err != nil {
		return err
	}
	if !c.Bool("trash") {
		if c.IsSet("expires") {
			return usagef("--expires is for --trash")
		}
		if err := h.RemoveImage(ctx, args[0]); err != nil {
			return err
		}
		return c.ui.result(map[string]string{"id": args[0]}, "%s is removed", args[0])
	}
	keep, err := c.keep()
	if err != nil {
		return err
	}
	t, err := h.TrashImage(ctx, args[0], keep)
	if err != nil {
		return err
	}
	return c.ui.result(trashedImage(t), "%s is in the trash, until %s at least; to have it back:  vmdisk image restore '%s'",
		t.Image, minute(t.Expires), args[0])
}

func runImageRestore(ctx context.Context, c *command, h *vmdisk.Host) error {
	args, err := c.arguments("ID")
	if err != nil {
		return err
	}
	i, err := h.RestoreImage(ctx, args[0])
	if err != nil {
		return err
	}
	return c.ui.result(i, "%s is restored", i.Name())
}

func runImagePurge(ctx context.Context, c *command, h *vmdisk.Host) error {
	args, err := c.arguments("ID")
	if err != nil {
		return err
	}
	t, err := h.PurgeImage(ctx, args[0], c.Bool("force"))
	if err != nil {
		return err
	}
	return c.ui.result(trashedImage(t), "%s is removed for good", t.Image)
}

func listTrashedImages(ctx context.Context, c *command, h *vmdisk.Host) error {
	found, err := h.TrashedImages(ctx)
	if err != nil {
		return err
	}
	return c.listTrash(found, trashedImage)
}
