// vmdisk eject

package main

import (
	"context"
	"path/filepath"

	"github.com/urfave/cli/v2"
	"github.com/vmdisk/vmdisk"
)

func ejectCommand() *cli.Command {
	return &cli.Command{
		Name: "eject", Usage: "move a machine's own disks out of Ceph into local files", ArgsUsage: "VM --to DIR",
		Description: `The way back from Ceph, while the machine runs or not. Volumes stay where they
are. The images are removed when the machine has its files.

  vmdisk eject web1 --to /var/lib/nova/instances/UUID`,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "to", Usage: "the `DIR` for the files"},
			&cli.StringFlag{Name: "format", Usage: "make files of this `FORMAT`: qcow2 or raw", Value: "qcow2"},
			diskFlag(), bandwidthFlag(),
		},
		Action: onVM(runEject),
	}
}

func runEject(ctx context.Context, c *command, h *vmdisk.Host, vm string) error {
	if c.String("to") == "" {
		return usagef("--to DIR is missing; usage: %s", c.usage())
	}
	if err := oneOf("--format", c.String("format"), "raw", "qcow2"); err != nil {
		return err
	}
	dir, err := filepath.Abs(c.String("to"))
	if err != nil {
		return err
	}
	rate, err := c.bandwidth()
	if err != nil {
		return err
	}
	a, err := h.Eject(ctx, vm, vmdisk.EjectOptions{Dir: dir, Disks: c.StringSlice("disk"), Format: c.String("format"), Bandwidth: rate})
	if err != nil {
		return err
	}
	return printAdoption(c.ui, a, ejectedLine)
}
