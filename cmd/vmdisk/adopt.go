// vmdisk adopt

package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/urfave/cli/v2"
	"github.com/vmdisk/vmdisk"
	"github.com/vmdisk/vmdisk/disk"
)

func adoptCommand() *cli.Command {
	return &cli.Command{
		Name: "adopt", Usage: "move a machine's disks from local files into Ceph", ArgsUsage: "VM | --nova-instances DIR",
		Description: `Files are raw, or qcow2 with backing files in the same folder or the _base
beside it, as Nova has them. A machine that runs goes on running; one that is
off stays off. Disks become UUID_disk and so on in the pool vms: they are the
machine's, and vmdisk rm removes them with it.

  vmdisk adopt web1 --dry-run          what would be done
  vmdisk adopt web1
  vmdisk adopt web1 --undo             back into the files, with what was written
  vmdisk adopt web1 --remove-source    no way back: remove the files
  vmdisk adopt --nova-instances /var/lib/nova/instances --jobs 4

The last does it with all machines of the host that have a folder there; one that
fails does not keep the others. Where a backing file is in Ceph as an image, byte
for byte, the disk becomes a clone of that. Ctrl-C while a disk is copied leaves it
where it was; the same command goes on with what is left.`,
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "dry-run", Usage: "only say what would be done", DisableDefaultText: true},
			diskFlag(), bandwidthFlag(),
			&cli.StringSliceFlag{Name: "allow", Usage: "backing files may be in `DIR`, too; may be repeated"},
			&cli.StringFlag{Name: "nova-instances", Usage: "all machines whose folders are in `DIR`"},
			&cli.IntFlag{Name: "jobs", Usage: "adopt `N` of them at once", Value: 2},
			&cli.BoolFlag{Name: "undo", Usage: "go back to the files", DisableDefaultText: true},
			&cli.BoolFlag{Name: "remove-source", Usage: "remove the files of a machine that was adopted", DisableDefaultText: true},
		},
		Action: onHost(runAdopt),
	}
}

func diskFlag() cli.Flag {
	return &cli.StringSliceFlag{Name: "disk", Usage: "only that at `TARGET`, as vda; may be repeated"}
}

func bandwidthFlag() cli.Flag {
	return &cli.StringFlag{Name: "bandwidth", Usage: "copy at most this `SIZE` a second, as 100M"}
}

func runAdopt(ctx context.Context, c *command, h *vmdisk.Host) error {
	if c.IsSet("nova-instances") {
		return runAdoptInstances(ctx, c, h)
	}
	args, err := c.arguments("VM")
	if err != nil {
		return err
	}
	if c.IsSet("jobs") {
		return usagef("--jobs is for --nova-instances")
	}
	vm, ways := args[0], 0
	for _, name := range []string{"dry-run", "undo", "remove-source"} {
		if c.Bool(name) {
			ways++
		}
	}
	if ways > 1 {
		return usagef("--dry-run, --undo and --remove-source exclude each other")
	}
	rate, err := c.bandwidth()
	if err != nil {
		return err
	}
	o := vmdisk.AdoptOptions{Disks: c.StringSlice("disk"), Allow: c.StringSlice("allow"), Bandwidth: rate}
	switch {
	case c.Bool("remove-source"):
		return runRemoveSource(ctx, c, h, vm)
	case c.Bool("undo"):
		a, err := h.Unadopt(ctx, vm, vmdisk.EjectOptions{Disks: o.Disks, Bandwidth: rate})
		if err != nil {
			return err
		}
		return printAdoption(c.ui, a, ejectedLine)
	case c.Bool("dry-run"):
		a, err := h.PlanAdoption(ctx, vm, o)
		if err != nil {
			return err
		}
		return printPlan(c.ui, a, rate)
	}
	a, err := h.Adopt(ctx, vm, o)
	if err != nil {
		return err
	}
	return printAdoption(c.ui, a, adoptedLine)
}

// bandwidth is what a copy is held to.
func (c *command) bandwidth() (int64, error) {
	return optionalSize(strings.TrimSuffix(c.String("bandwidth"), "/s"))
}

func runRemoveSource(ctx context.Context, c *command, h *vmdisk.Host, vm string) error {
	removed, err := h.RemoveAdopted(ctx, vm)
	if err != nil {
		return err
	}
	value := struct {
		VM      string   `json:"vm"`
		Removed []string `json:"removed"`
	}{vm, removed}
	return c.ui.result(value, "%s: removed %s", vm, strings.Join(removed, ", "))
}

// adoption is one that happened, as JSON.
type adoption struct {
	vmdisk.Adoption
	Disks []adoptedDisk `json:"disks"` // hides the embedded ones
}

type adoptedDisk struct {
	vmdisk.AdoptedDisk
	Elapsed int64 `json:"elapsed_ms"`
	Stood   int64 `json:"stood_still_ms"`
}

func adoptionOf(a vmdisk.Adoption) adoption {
	value := adoption{Adoption: a, Disks: []adoptedDisk{}}
	for _, d := range a.Disks {
		value.Disks = append(value.Disks, adoptedDisk{d, d.Elapsed.Milliseconds(), d.Stood.Milliseconds()})
	}
	return value
}

// printAdoption prints a line for each disk.
func printAdoption(u *ui, a vmdisk.Adoption, line func(vmdisk.AdoptedDisk) string) error {
	u.close()
	if u.json {
		return u.encode(adoptionOf(a))
	}
	var t text
	if len(a.Drives) > 0 {
		t.add("%s stay as they are: drives, whose media are files", strings.Join(a.Drives, ", "))
	}
	var size int64
	var took, stood time.Duration
	for _, d := range a.Disks {
		t.add("%s  %s", d.Target, line(d))
		size, took, stood = size+d.Size, took+d.Elapsed, stood+d.Stood
	}
	last := fmt.Sprintf("%s: %s moved in %s", a.VM, disk.FormatSize(size), strings.TrimSpace(duration(took)))
	if a.Running {
		last += fmt.Sprintf(", it stood still for %d ms", stood.Milliseconds())
	}
	t.add("%s", last)
	return t.print(u)
}

func adoptedLine(d vmdisk.AdoptedDisk) string {
	return fmt.Sprintf("%s\n     kept: %s", d.Name(), d.File)
}

func ejectedLine(d vmdisk.AdoptedDisk) string { return d.File }

// assumedRate is what a plan reckons with, in bytes a second, if nothing is said.
const assumedRate = 100 << 20

// printPlan says what an adoption would do.
func printPlan(u *ui, a vmdisk.Adoption, rate int64) error {
	u.close()
	if u.json {
		return u.encode(adoptionOf(a))
	}
	var t text
	for _, d := range a.Disks {
		t.add("%s  %s, %s → %s", d.Target, d.Format, disk.FormatSize(d.Size), d.Name())
		for _, l := range d.Chain {
			t.add("     %s (%s, %s on disk)", l.Path, l.Format, disk.FormatSize(l.Used))
		}
		if d.Parent != "" {
			t.add("     as a clone of %s, with what is above that", d.Parent)
		}
	}
	t.add("%s", strings.TrimSuffix(unifiedDiff(a.Before, a.After), "\n"))
	total := int64(0)
	for _, d := range a.Disks {
		total += d.Data
	}
	t.add("%s", expected(total, rate))
	return t.print(u)
}
