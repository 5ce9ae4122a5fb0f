// vmdisk ls, info, start, stop, rm

package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/urfave/cli/v2"
	"github.com/vmdisk/vmdisk"
	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/domain"
)

func lsCommand() *cli.Command {
	return &cli.Command{
		Name: "ls", Aliases: []string{"list"}, Usage: "list the machines of the host",
		Action: onHost(func(ctx context.Context, c *command, h *vmdisk.Host) error {
			if _, err := c.arguments(); err != nil {
				return err
			}
			vms, err := h.VMs(ctx)
			if err != nil {
				return err
			}
			var rows []string
			for _, vm := range vms {
				rows = append(rows, strings.Join([]string{vm.Name, vmState(vm), diskSummary(vm), vm.UUID}, "\t"))
			}
			return c.ui.table(vms, "no machines", "NAME\tSTATE\tDISKS\tUUID", rows)
		}),
	}
}

// vmState says of a machine that belongs to another host that it does.
func vmState(vm vmdisk.VM) string {
	if vm.Elsewhere != "" {
		return vm.State + " (belongs to " + vm.Elsewhere + ")"
	}
	return vm.State
}

func diskSummary(vm vmdisk.VM) string {
	var all []string
	for _, d := range vm.Disks {
		s := d.Target
		if d.Size > 0 {
			s += " " + disk.FormatSize(d.Size)
		}
		all = append(all, s)
	}
	if len(all) == 0 {
		return "-"
	}
	return strings.Join(all, ", ")
}

func infoCommand() *cli.Command {
	return &cli.Command{
		Name: "info", Usage: "describe a machine", ArgsUsage: "VM",
		Action: onVM(func(ctx context.Context, c *command, h *vmdisk.Host, vm string) error {
			v, err := h.VM(ctx, vm)
			if err != nil {
				return err
			}
			return c.ui.result(v, "%s", describeVM(v))
		}),
	}
}

func describeVM(vm vmdisk.VM) string {
	var b strings.Builder
	fmt.Fprintf(&b, "name   %s\nuuid   %s\nstate  %s\nhost   %s", vm.Name, vm.UUID, vm.State, vm.Host)
	for _, d := range vm.Disks {
		what := "not in Ceph"
		if d.Source != "" {
			what = d.Source + ", not in this cluster"
		}
		if d.Pool != "" {
			what = fmt.Sprintf("%s/%s, %s, cache %s, %s", d.Pool, d.Image, disk.FormatSize(d.Size), d.Cache, d.Role)
		}
		if d.QoS != nil {
			what += "; " + d.QoS.String()
		}
		fmt.Fprintf(&b, "\n%-6s %s", d.Target, what)
	}
	if f := vm.Filling; f != nil {
		fmt.Fprintf(&b, "\nreads from %s what is not in Ceph yet (%d %% is)", f.Origin.Where, f.Percent)
	}
	if vm.Resize != nil {
		fmt.Fprintf(&b, "\nresize from %s is pending, since %s", disk.FormatSize(vm.Resize.From), vm.Resize.Since.Local().Format("2006-01-02 15:04"))
	}
	return b.String()
}

func startCommand() *cli.Command {
	return &cli.Command{
		Name: "start", Usage: "start a machine", ArgsUsage: "VM",
		Action: onVM(func(ctx context.Context, c *command, h *vmdisk.Host, vm string) error {
			v, err := h.Start(ctx, vm)
			if err != nil {
				return err
			}
			return c.ui.result(v, "%s", bootedLine(v))
		}),
	}
}

func stopCommand() *cli.Command {
	return &cli.Command{
		Name: "stop", Usage: "ask a machine's guest to power off, and wait", ArgsUsage: "VM",
		Flags: []cli.Flag{&cli.BoolFlag{Name: "force", Aliases: []string{"f"}, Usage: "cut the power instead"}},
		Action: onVM(func(ctx context.Context, c *command, h *vmdisk.Host, vm string) error {
			v, err := h.Stop(ctx, vm, c.Bool("force"))
			if err != nil {
				return err
			}
			return c.ui.result(v, "%s", bootedLine(v))
		}),
	}
}

func rmCommand() *cli.Command {
	return &cli.Command{
		Name: "rm", Usage: "end machines and remove their disks; volumes stay", ArgsUsage: "VM...",
		Description: "Safe to run again: an interrupted rm is finished by the next one.",
		Flags:       []cli.Flag{&cli.BoolFlag{Name: "ignore-not-found", Usage: "succeed if there is no such machine"}},
		Action:      onHost(runRm),
	}
}

func runRm(ctx context.Context, c *command, h *vmdisk.Host) error {
	args, err := c.several("VM")
	if err != nil {
		return err
	}
	return doMany(c, args, func(vm string) (vmdisk.Removal, error) {
		r, err := h.Remove(ctx, vm)
		if c.Bool("ignore-not-found") && errors.Is(err, domain.ErrNotFound) {
			return vmdisk.Removal{VM: vm, Images: []string{}, Kept: []string{}}, nil
		}
		return r, err
	}, removedLine)
}

func removedLine(r vmdisk.Removal) string {
	if r.UUID == "" { // there was none
		return ""
	}
	if len(r.Kept) > 0 {
		return r.VM + " is removed; kept: " + strings.Join(r.Kept, ", ")
	}
	return r.VM + " is removed"
}

// onVM is an action on one machine.
func onVM(f func(context.Context, *command, *vmdisk.Host, string) error) cli.ActionFunc {
	return onHost(func(ctx context.Context, c *command, h *vmdisk.Host) error {
		args, err := c.arguments("VM")
		if err != nil {
			return err
		}
		return f(ctx, c, h, args[0])
	})
}
