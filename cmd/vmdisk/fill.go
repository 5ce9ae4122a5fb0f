// vmdisk fill, and what of it is boot's: the data of a disk that is read from a file or
// a URL

package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/urfave/cli/v2"
	"github.com/vmdisk/vmdisk"
)

func fillCommand() *cli.Command {
	return &cli.Command{
		Name: "fill", Usage: "bring the data of a disk booted from a file or URL into Ceph", ArgsUsage: "VM",
		Description: `Goes on where an earlier one, or the boot, was interrupted. VM may run, be
started, stopped and, unless its data is in a FILE, be moved meanwhile. When all
data is in Ceph, the file or URL is not needed any more.

Ctrl-C ends it, and so does vmdisk fill --abort VM, from wherever: VM runs on and
reads from there as before. To give up VM and its disk:  vmdisk rm VM

If what is there goes away, a guest that reads from it is paused with an I/O
error, and nothing is lost. When it is back:  virsh resume VM; vmdisk fill VM`,
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "status", Usage: "say how far it is", DisableDefaultText: true},
			&cli.BoolFlag{Name: "abort", Usage: "end the one that is under way", DisableDefaultText: true},
		},
		Action: onVM(runFill),
	}
}

func runFill(ctx context.Context, c *command, h *vmdisk.Host, vm string) error {
	switch {
	case c.Bool("status") && c.Bool("abort"):
		return usagef("--status and --abort exclude each other")
	case c.Bool("status"):
		s, err := h.Filling(ctx, vm)
		if err != nil {
			return err
		}
		return c.ui.result(s, "%s", describeFilling(s))
	case c.Bool("abort"):
		s, err := h.AbortFill(ctx, vm)
		if err != nil {
			return err
		}
		return c.ui.result(s, "aborted: %s", describeFilling(s))
	}
	done, err := h.Fill(ctx, vm)
	if err != nil {
		return err
	}
	return c.ui.result(filledOf(done), "%s", filledLine(done))
}

// filled is a disk that is whole, as JSON.
type filled struct {
	VM      string `json:"vm"`
	Disk    string `json:"disk"`
	From    string `json:"from,omitempty"` // not there if it was whole already
	Elapsed int64  `json:"elapsed_ms"`
}

func filledOf(f vmdisk.Filled) filled {
	all := filled{VM: f.VM, Disk: f.Disk, Elapsed: f.Elapsed.Milliseconds()}
	if f.Origin != nil {
		all.From = f.Origin.Where
	}
	return all
}

func filledLine(f vmdisk.Filled) string {
	if f.Origin == nil {
		return f.VM + "'s data is all in Ceph already"
	}
	return fmt.Sprintf("%s's data is all in Ceph: %s", f.VM, strings.TrimSpace(duration(f.Elapsed)))
}

func describeFilling(s vmdisk.FillStatus) string {
	if s.Filling == nil {
		return s.VM + "'s data is all in Ceph"
	}
	by := "nobody; to go on:  vmdisk fill " + s.VM
	if s.By != nil {
		by = fmt.Sprintf("pid %d on %s", s.By.PID, s.By.Host)
	}
	return fmt.Sprintf("disk  %s\nfrom  %s\nat    %d %%\nby    %s", s.Disk, s.Filling.Origin.Where, s.Filling.Percent, by)
}

// booted says that a machine is there, and brings its data if that is elsewhere: after
// that, or before it if the result is waited for.
func (c *command) booted(ctx context.Context, h *vmdisk.Host, vm vmdisk.VM) error {
	line := bootedLine(vm)
	if vm.Filling == nil {
		return c.ui.result(vm, "%s", line)
	}
	if !c.Bool("wait") {
		if err := c.ui.result(vm, "%s", line); err != nil {
			return err
		}
		c.ui.begin()
		_, err := h.Fill(ctx, vm.UUID)
		return err
	}
	if _, err := h.Fill(ctx, vm.UUID); err != nil {
		return err
	}
	vm.Filling = nil
	return c.ui.result(vm, "%s", line)
}
