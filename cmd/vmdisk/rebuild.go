// vmdisk rebuild

package main

import (
	"context"

	"github.com/urfave/cli/v2"
	"github.com/vmdisk/vmdisk"
)

func rebuildCommand() *cli.Command {
	return &cli.Command{
		Name: "rebuild", Usage: "replace a machine's root disk by a fresh one from an image", ArgsUsage: "VM --image ID",
		Description: `What was on the root disk is lost. Name, UUID, volumes and all other disks stay,
and the size, unless the image is larger. Safe to run again after a failure:

  vmdisk rebuild web1 --image debian-13`,
		Flags: []cli.Flag{imageFlag("clone"), forceFlag()},
		Action: onVM(func(ctx context.Context, c *command, h *vmdisk.Host, vm string) error {
			if err := needImage(c); err != nil {
				return err
			}
			v, err := h.Rebuild(ctx, vm, vmdisk.RebuildOptions{Image: c.String("image"), Force: c.Bool("force")})
			if err != nil {
				return err
			}
			return c.ui.result(v, "%s", bootedLine(v))
		}),
	}
}
