// vmdisk why

package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/urfave/cli/v2"
	"github.com/vmdisk/vmdisk"
)

func whyCommand() *cli.Command {
	return &cli.Command{
		Name: "why", Usage: "who has a machine's disks, and what to do", ArgsUsage: "VM",
		Description: `Why does it not start, why "image still has watchers", why does its guest drop to
the initramfs after a power cut: who has the disks open and locked, what both hosts
say, which workflows are under way, who is fenced, and what to type. Changes nothing.`,
		Action: onVM(func(ctx context.Context, c *command, h *vmdisk.Host, vm string) error {
			w, err := h.Why(ctx, vm)
			if err != nil {
				return err
			}
			c.ui.close()
			if c.ui.json {
				return c.ui.encode(w)
			}
			return printWhy(c.ui, w)
		}),
	}
}

func printWhy(u *ui, w vmdisk.Why) error {
	var t text
	line := func(what, format string, args ...any) { t.add("%-8s %s", what, fmt.Sprintf(format, args...)) }
	line("vm", "%s  %s", w.VM, w.UUID)
	if m := w.Record; m != nil {
		line("record", "on %s, generation %d, %s", m.Host, m.Generation, since(m.Updated))
		for _, b := range m.Behind {
			line("", "taken from %s at %s", b.Host, since(b.Since))
			for _, addr := range b.Fenced {
				line("", "  fenced: %s", addr)
			}
		}
	}
	for _, h := range w.Hosts {
		pids := ""
		for _, pid := range h.PIDs {
			pids += fmt.Sprintf(", pid %d", pid)
		}
		line("host", "%s: %s%s", h.Host, h.State, pids)
	}
	for _, d := range w.Disks {
		line("disk", "%s/%s", d.Pool, d.Image)
		if d.Error != "" {
			line("", "%s", d.Error)
		}
		if len(d.Users) == 0 && d.Error == "" {
			line("", "nobody has it open or locked")
		}
		for _, user := range d.Users {
			line("", "%s", whyUser(user))
			line("", "  %s", user.Who)
		}
	}
	for _, o := range w.Operations {
		line("work", "%s, %s, by pid %d on %s", o.Kind, o.State, o.Holder.PID, o.Holder.Host)
	}
	for _, c := range w.Checks {
		if !c.OK {
			line(c.Name, "%s", c.Detail)
		}
	}
	t.add("%s", w.Verdict)
	if w.Next != "" {
		t.add("  %s", w.Next)
	}
	return t.print(u)
}

// whyUser is "open and locked by client.4123 from 10.0.0.12:0/815".
func whyUser(user vmdisk.WhyUser) string {
	var does []string
	if user.Watches {
		does = append(does, "open")
	}
	if user.Locks {
		does = append(does, "locked")
	}
	s := strings.Join(does, ", ") + " by "
	if user.Client != "" {
		s += user.Client + " from "
	}
	s += user.Addr
	if user.Fenced {
		s += ", fenced"
	}
	return s
}
