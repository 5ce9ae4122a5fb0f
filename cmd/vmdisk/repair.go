// vmdisk repair

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

// orphanAge is how old an orphan is that is told of, unless one says otherwise.
const orphanAge = time.Hour

func repairCommand() *cli.Command {
	return &cli.Command{
		Name: "repair", Usage: "finish or take back what was interrupted", ArgsUsage: "[VM]",
		Description: `Brings what a killed vmdisk or a dead host left half done to an end, stops the
wrong one of two QEMUs on one image, clears away what was left on a host that a
machine was evacuated from, and lists what belongs to nothing any more. Safe to run
again: the second run changes nothing.

  vmdisk repair --dry-run           what would be done
  vmdisk repair web1                only this machine; waits for a silent process
  vmdisk repair --remove-orphans    look at the list first: the disk of a machine
                                    that another tool defines on another host, and
                                    that is off, looks the same`,
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "dry-run", Usage: "only say what would be done"},
			&cli.BoolFlag{Name: "remove-orphans", Usage: "remove what belongs to nothing any more"},
			&cli.DurationFlag{Name: "older-than", Usage: "spare orphans younger than `TIME`", Value: orphanAge},
		},
		Action: onHost(runRepair),
	}
}

func runRepair(ctx context.Context, c *command, h *vmdisk.Host) error {
	vm := ""
	if c.Args().Present() {
		args, err := c.arguments("VM")
		if err != nil {
			return err
		}
		vm = args[0]
	}
	if c.Duration("older-than") <= 0 {
		return usagef("--older-than %v is not positive", c.Duration("older-than"))
	}
	r, failure := h.Repair(ctx, vmdisk.RepairOptions{VM: vm, DryRun: c.Bool("dry-run"),
		RemoveOrphans: c.Bool("remove-orphans"), OlderThan: c.Duration("older-than")})
	if failure != nil && len(r.Operations)+len(r.Machines)+len(r.Orphans) == 0 {
		return failure // nothing is known, which is not nothing to repair
	}
	if err := printRepair(c.ui, r, c.Duration("older-than"), failure != nil); err != nil {
		return err
	}
	return failure
}

func printRepair(u *ui, r vmdisk.Repair, older time.Duration, failed bool) error {
	u.close()
	if u.json {
		return u.encode(r)
	}
	var t text
	for _, o := range r.Operations {
		t.add("%s: %s %s", o.State, o.Kind, o.Object)
		t.add("  by %s, since %s", o.Holder, since(o.Started))
		if o.State != vmdisk.UnderWay {
			t.outcome(r.DryRun, o.Remedies, o.Outcome)
		}
	}
	for _, f := range r.Machines {
		t.add("%s %s", f.VM, f.What)
		t.add("  %s", f.Detail)
		t.outcome(r.DryRun, f.Remedies, f.Outcome)
	}
	removable := 0
	for _, o := range r.Orphans {
		t.add("orphan: %s, %s, %s old", o.Name, disk.FormatSize(o.Size), age(o.Created))
		removed := []string{"remove " + o.Kind}
		if !o.Done && o.Error == "" {
			removable, removed = removable+1, nil
		}
		t.add("  %s", o.Reason)
		t.outcome(false, removed, o.Outcome)
	}
	if removable > 0 {
		again := "vmdisk repair --remove-orphans"
		if older != orphanAge {
			again += " --older-than " + older.String()
		}
		t.add("to remove what is not needed:  %s", again)
	}
	if !r.Changed() && !failed && len(r.Operations)+len(r.Machines)+removable == 0 {
		t.add("nothing to repair")
	}
	return t.print(u)
}

// outcome says what was done, or would be, and what to type.
func (t *text) outcome(dry bool, remedies []string, o vmdisk.Outcome) {
	for _, remedy := range remedies {
		switch {
		case dry:
			t.add("  would %s", remedy)
		case o.Done:
			t.add("  done: %s", remedy)
		default:
			t.add("  not done: %s", remedy)
		}
	}
	if o.Next == "" && len(remedies) == 0 {
		switch {
		case dry:
			t.add("  would forget it: nothing is left")
		case o.Done:
			t.add("  done: forget it, nothing was left")
		}
	}
	if o.Next != "" {
		t.add("  %s", o.Next)
	}
}

// text is a result of several lines.
type text []string

func (t *text) add(format string, args ...any) { *t = append(*t, fmt.Sprintf(format, args...)) }

func (t *text) print(u *ui) error {
	if len(*t) == 0 {
		return nil
	}
	return u.text(strings.Join(*t, "\n"))
}

func since(t time.Time) string { return t.Local().Format("2006-01-02 15:04:05") }

// age is how long ago something was, roughly.
func age(t time.Time) string {
	d := time.Since(t)
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%d s", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%d min", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h", int(d.Hours()))
	}
	return fmt.Sprintf("%d days", int(d.Hours()/24))
}
