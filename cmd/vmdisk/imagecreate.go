// vmdisk image create

package main

import (
	"context"

	"github.com/urfave/cli/v2"
	"github.com/vmdisk/vmdisk"
	"github.com/vmdisk/vmdisk/disk"
)

func imageCreateCommand() *cli.Command {
	return &cli.Command{
		Name: "create", Usage: "make an image of a machine's root disk, also while it runs", ArgsUsage: "VM",
		Description: `A guest with an agent is frozen for the moment of a snapshot and runs on while the
data is copied. The image is there when it is whole; Ctrl-C leaves nothing.

  vmdisk image create web1 --name web-2024`,
		Flags: []cli.Flag{&cli.StringFlag{Name: "name", Usage: "`ID` of the image", DefaultText: "new UUID"}},
		Action: onVM(func(ctx context.Context, c *command, h *vmdisk.Host, vm string) error {
			if c.IsSet("name") && c.String("name") == "" {
				return usagef("--name is empty")
			}
			image, err := h.CreateImage(ctx, vm, vmdisk.CreateImageOptions{ID: c.String("name")})
			if err != nil {
				return err
			}
			return c.ui.result(image, "%s is ready to clone, %s with %s of data", image.Name(),
				disk.FormatSize(image.Size), disk.FormatSize(image.Used))
		}),
	}
}
