// vmdisk rescue, unrescue

package main

import (
	"context"

	"github.com/urfave/cli/v2"
	"github.com/vmdisk/vmdisk"
)

func rescueCommand() *cli.Command {
	return &cli.Command{
		Name: "rescue", Usage: "boot a machine from another image, with its own disk beside that", ArgsUsage: "VM --image ID",
		Description: `The image takes the place of the root disk, which moves to the first free target;
vmdisk info VM says which. The machine is stopped first if it runs. To go back:

  vmdisk rescue web1 --image debian-12-rescue
  vmdisk unrescue web1`,
		Flags: []cli.Flag{imageFlag("boot from"), forceFlag(),
			&cli.BoolFlag{Name: "no-start", Usage: "define the machine and leave it off"}},
		Action: onVM(func(ctx context.Context, c *command, h *vmdisk.Host, vm string) error {
			if err := needImage(c); err != nil {
				return err
			}
			v, err := h.Rescue(ctx, vm, vmdisk.RescueOptions{Image: c.String("image"), Force: c.Bool("force"), NoStart: c.Bool("no-start")})
			if err != nil {
				return err
			}
			return c.ui.result(v, "%s; its own disk is %s", bootedLine(v), rootTarget(v))
		}),
	}
}

func unrescueCommand() *cli.Command {
	return &cli.Command{
		Name: "unrescue", Usage: "boot a machine from its own disk again", ArgsUsage: "VM",
		Flags: []cli.Flag{forceFlag()},
		Action: onVM(func(ctx context.Context, c *command, h *vmdisk.Host, vm string) error {
			v, err := h.Unrescue(ctx, vm, c.Bool("force"))
			if err != nil {
				return err
			}
			return c.ui.result(v, "%s", bootedLine(v))
		}),
	}
}

func imageFlag(what string) cli.Flag {
	return &cli.StringFlag{Name: "image", Usage: what + " `[POOL/]ID[@SNAP]`"}
}

func needImage(c *command) error {
	if c.String("image") == "" {
		return usagef("--image is missing; vmdisk image ls lists them")
	}
	return nil
}

// rootTarget is where a machine has its own root disk.
func rootTarget(vm vmdisk.VM) string {
	for _, d := range vm.Disks {
		if d.Role == "root" {
			return d.Target
		}
	}
	return "-"
}
