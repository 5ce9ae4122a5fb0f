// vmdisk resize

package main

import (
	"context"

	"github.com/urfave/cli/v2"
	"github.com/vmdisk/vmdisk"
)

func resizeCommand() *cli.Command {
	return &cli.Command{
		Name: "resize", Usage: "grow a machine's root disk, also while it runs", ArgsUsage: "VM SIZE | --confirm VM | --revert VM",
		Description: `SIZE is the new size (20G) or how much to grow by (+10G). With --revertible the
disk is kept as it was, too, until the resize is confirmed or reverted:

  vmdisk resize web1 20G --revertible
  vmdisk resize --revert web1         # stops it, rolls the disk back, starts it
  vmdisk resize --confirm web1        # or: there is no way back any more`,
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "revertible", Usage: "keep a way back"},
			&cli.BoolFlag{Name: "confirm", Usage: "give up the way back"},
			&cli.BoolFlag{Name: "revert", Usage: "go back; what was written since is lost"},
			forceFlag(),
		},
		Action: onHost(runResize),
	}
}

// forceFlag is for commands that stop a machine.
func forceFlag() cli.Flag {
	return &cli.BoolFlag{Name: "force", Aliases: []string{"f"}, Usage: "cut the power instead of asking the guest first"}
}

func runResize(ctx context.Context, c *command, h *vmdisk.Host) error {
	set := 0
	for _, flag := range []string{"revertible", "confirm", "revert"} {
		if c.Bool(flag) {
			set++
		}
	}
	if set > 1 {
		return usagef("--revertible, --confirm and --revert exclude each other")
	}
	if c.Bool("force") && !c.Bool("revert") {
		return usagef("--force goes with --revert, which stops the machine")
	}
	if c.Bool("confirm") || c.Bool("revert") {
		return runResizeEnd(ctx, c, h)
	}
	args, err := c.arguments("VM", "SIZE")
	if err != nil {
		return err
	}
	size, by, err := parseGrowth(args[1])
	if err != nil {
		return err
	}
	if !c.Bool("revertible") {
		vm, err := h.Resize(ctx, args[0], size, by)
		if err != nil {
			return err
		}
		return c.ui.result(vm, "%s: %s", vm.Name, diskSummary(vm))
	}
	vm, err := h.ResizeRevertible(ctx, args[0], size, by)
	if err != nil {
		return err
	}
	return c.ui.result(vm, "%s: %s; next: vmdisk resize --confirm %s, or --revert", vm.Name, diskSummary(vm), vm.Name)
}

func runResizeEnd(ctx context.Context, c *command, h *vmdisk.Host) error {
	args, err := c.arguments("VM")
	if err != nil {
		return err
	}
	var vm vmdisk.VM
	if c.Bool("confirm") {
		vm, err = h.ConfirmResize(ctx, args[0])
	} else {
		vm, err = h.RevertResize(ctx, args[0], c.Bool("force"))
	}
	if err != nil {
		return err
	}
	return c.ui.result(vm, "%s is %s: %s", vm.Name, vm.State, diskSummary(vm))
}
