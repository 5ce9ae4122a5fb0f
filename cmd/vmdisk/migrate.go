// vmdisk migrate

package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"
	"github.com/vmdisk/vmdisk"
	"github.com/vmdisk/vmdisk/disk"
)

func migrateCommand() *cli.Command {
	return &cli.Command{
		Name: "migrate", Usage: "move a machine to another host", ArgsUsage: "VM DEST",
		Description: `DEST is a libvirt URI, or a host name that gets the scheme and path of
--connect. The source host uses it too. Ctrl-C aborts the move; the machine
stays where it was, unless it is in post-copy. So does vmdisk migrate --abort
VM, from wherever; aborted either way it ends with 130.

` + policyHelp + `

The percentage is of memory that was there once: a guest that writes it anew
makes more to go, and not fewer percent.`,
		Flags: slices.Concat(migrateStatusFlags(), []cli.Flag{
			&cli.BoolFlag{Name: "check", Usage: "only ask whether DEST can run the machine", DisableDefaultText: true},
			&cli.BoolFlag{Name: "no-check", Usage: "do not ask", DisableDefaultText: true},
			&cli.BoolFlag{Name: "no-forecast", Usage: "do not measure the machine first, which takes 1 s", DisableDefaultText: true},
			&cli.BoolFlag{Name: "fix", Usage: "cure what can be: networks missing there, media", DisableDefaultText: true},
			&cli.BoolFlag{Name: "offline", Usage: "VM is off: only its definition moves", DisableDefaultText: true},
			&cli.BoolFlag{Name: "recover", Usage: "go on with one interrupted in post-copy: VM [DEST]", DisableDefaultText: true},
		}, policyFlags()),
		Action: onHost(runMigrate),
	}
}

func runMigrate(ctx context.Context, c *command, h *vmdisk.Host) error {
	if c.Bool("status") || c.Bool("abort") {
		if c.Bool("status") && c.Bool("abort") {
			return usagef("--status and --abort exclude each other")
		}
		return runMigrateStatus(ctx, c, h, c.Bool("abort"))
	}
	if c.Bool("recover") {
		return runRecover(ctx, c, h)
	}
	args, err := c.arguments("VM", "DEST")
	if err != nil {
		return err
	}
	if c.Bool("no-check") && (c.Bool("check") || c.Bool("fix")) {
		return usagef("--no-check excludes --check and --fix")
	}
	o := vmdisk.MigrateOptions{NoCheck: c.Bool("no-check"), NoForecast: c.Bool("no-forecast"), Fix: c.Bool("fix"), Offline: c.Bool("offline")}
	if c.Bool("check") {
		return runCheck(ctx, c, h, args[0], args[1], o)
	}
	if o.Policy, err = c.policy(); err != nil {
		return err
	}
	m, err := h.Migrate(ctx, args[0], args[1], o)
	if err != nil {
		return err
	}
	value := struct {
		VM string `json:"vm"`
		migration
	}{m.VM, migrationOf(m)}
	if o.Offline {
		return c.ui.result(value, "%s is on %s, shut off: %s", m.VM, m.To, strings.TrimSpace(duration(m.Elapsed)))
	}
	took, stood := fmt.Sprintf("%.1f s", m.Elapsed.Seconds()), fmt.Sprintf("downtime %d ms", m.Downtime.Milliseconds())
	if f := m.Forecast; f != nil && f.Converges {
		took += fmt.Sprintf(" (forecast %.1f s)", f.Elapsed.Seconds())
		stood += fmt.Sprintf(" (%d ms)", f.Downtime.Round(10*time.Millisecond).Milliseconds())
	}
	return c.ui.result(value, "%s runs on %s: %s, %s, %s sent", m.VM, m.To, took, stood, disk.FormatSize(m.Transferred))
}

// migration is one that happened, as JSON.
type migration struct {
	From        string    `json:"from"`
	To          string    `json:"to"`
	Elapsed     int64     `json:"elapsed_ms"`
	Downtime    int64     `json:"downtime_ms"`
	Transferred int64     `json:"transferred_bytes"`
	Offline     bool      `json:"offline"`     // it is off, and only its definition has moved
	HandedOver  bool      `json:"handed_over"` // nobody but the destination's client has its disks
	Forecast    *forecast `json:"forecast,omitempty"`
}

func migrationOf(m vmdisk.Migration) migration {
	return migration{
		From: m.From, To: m.To, Elapsed: m.Elapsed.Milliseconds(), Downtime: m.Downtime.Milliseconds(),
		Transferred: m.Transferred, Offline: m.Offline, HandedOver: m.HandedOver, Forecast: forecastOf(m.Forecast),
	}
}

func runRecover(ctx context.Context, c *command, h *vmdisk.Host) error {
	args := c.Args().Slice()
	if len(args) == 0 || len(args) > 2 {
		return usagef("--recover takes VM [DEST]; usage: %s", c.usage())
	}
	m, err := h.RecoverMigration(ctx, args[0], c.Args().Get(1))
	if err != nil {
		return err
	}
	value := struct {
		VM string `json:"vm"`
		To string `json:"to"`
	}{m.VM, m.To}
	return c.ui.result(value, "%s runs on %s, with all of its memory", m.VM, m.To)
}
