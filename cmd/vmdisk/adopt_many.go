// vmdisk adopt --nova-instances

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/vmdisk/vmdisk"
	"github.com/vmdisk/vmdisk/disk"
)

func runAdoptInstances(ctx context.Context, c *command, h *vmdisk.Host) error {
	if _, err := c.arguments(); err != nil {
		return err
	}
	for _, name := range []string{"undo", "remove-source", "disk"} {
		if c.IsSet(name) {
			return usagef("--%s is for one machine, not for --nova-instances", name)
		}
	}
	o := vmdisk.InstancesOptions{Jobs: c.Int("jobs"), DryRun: c.Bool("dry-run")}
	if o.Jobs < 1 {
		return usagef("--jobs %d is not positive", o.Jobs)
	}
	rate, err := c.bandwidth()
	if err != nil {
		return err
	}
	o.Adopt = vmdisk.AdoptOptions{Allow: c.StringSlice("allow"), Bandwidth: rate}
	c.ui.main, c.ui.part = "adopt instances", "adopt"
	begin := time.Now()
	all, err := h.AdoptInstances(ctx, c.String("nova-instances"), o)
	var some *vmdisk.InstancesError
	if err != nil && !errors.As(err, &some) {
		return err
	}
	if err := printInstances(c.ui, all); err != nil {
		return err
	}
	if some != nil {
		return summed(some.Errs, some)
	}
	if c.ui.json {
		return nil
	}
	return c.ui.text(instancesLine(all, o.DryRun, time.Since(begin)))
}

// instancesLine is what came of them all.
func instancesLine(all []vmdisk.Instance, dry bool, took time.Duration) string {
	machines, data, size := 0, int64(0), int64(0)
	for _, i := range all {
		if !i.Whole() || len(i.Disks) == 0 {
			continue
		}
		machines++
		for _, d := range i.Disks {
			data, size = data+d.Data, size+d.Size
		}
	}
	switch {
	case machines == 0:
		return "no machine to adopt"
	case dry:
		return fmt.Sprintf("would adopt %s with %s, of which up to %s would be copied", count(machines, "machine"), disk.FormatSize(size), disk.FormatSize(data))
	}
	return fmt.Sprintf("%s with %s adopted in %s", count(machines, "machine"), disk.FormatSize(size), strings.TrimSpace(duration(took)))
}

// count is so many of something.
func count(n int, what string) string {
	if n != 1 {
		what += "s"
	}
	return fmt.Sprintf("%d %s", n, what)
}

// instance is one of a listing, as JSON.
type instance struct {
	VM    string        `json:"vm"`
	UUID  string        `json:"uuid"`
	State string        `json:"state"`
	Dir   string        `json:"folder"`
	Disks []adoptedDisk `json:"disks"`
	Error string        `json:"error,omitempty"`
}

func printInstances(u *ui, all []vmdisk.Instance) error {
	lines := []instance{}
	var rows, notes []string
	for _, i := range all {
		line := instance{VM: i.VM, UUID: i.UUID, State: i.State, Dir: i.Dir, Disks: adoptionOf(vmdisk.Adoption{Disks: i.Disks}).Disks}
		if i.Err != nil {
			line.Error = i.Err.Error()
		}
		lines = append(lines, line)
		rows = append(rows, instanceRows(i)...)
		if i.Next != "" {
			notes = append(notes, i.VM+" is not defined; "+i.Next)
		}
	}
	if err := u.table(lines, "no instances", "NAME\tSTATE\tDISK\tSIZE\tCHAIN\tUUID", rows); err != nil || u.json || len(notes) == 0 {
		return err
	}
	return u.text(strings.Join(notes, "\n"))
}

// instanceRows are a row for each disk.
func instanceRows(i vmdisk.Instance) []string {
	row := func(disk, size, chain string) string {
		return strings.Join([]string{orDash(i.VM), cmp.Or(i.State, "not defined"), disk, size, chain, i.UUID}, "\t")
	}
	switch {
	case i.Dir == "":
		return []string{row("no folder", "-", "-")}
	case i.Err != nil:
		return []string{row("failed", "-", "-")}
	case len(i.Disks) == 0 && i.State != "":
		return []string{row("in Ceph", "-", "-")}
	case len(i.Disks) == 0:
		return []string{row("none", "-", "-")}
	}
	var rows []string
	for _, d := range i.Disks {
		var formats []string
		for _, l := range d.Chain {
			formats = append(formats, l.Format)
		}
		chain := orDash(strings.Join(formats, "/"))
		if d.Parent != "" {
			chain += ", clone"
		}
		rows = append(rows, row(d.Target, disk.FormatSize(d.Size), chain))
	}
	return rows
}
