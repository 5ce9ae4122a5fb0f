// vmdisk volume rm, restore, purge, ls --trash

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

func volumeRmCommand() *cli.Command {
	return &cli.Command{
		Name: "rm", Usage: "remove a volume that nobody uses", ArgsUsage: "VOLUME",
		Description: "A volume that is attached or open, or has clones or snapshots of yours, stays, and\n" +
			"the error names them. Snapshots of backups go with it; the backups stay whole.\n" +
			"Safe to run again: an interrupted rm is finished by the next one.",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "trash", Usage: "into the trash, to be restored or purged; snapshots go along"},
			&cli.StringFlag{Name: "expires", Usage: "with --trash, not to be purged for `TIME` (14d, 12h)", Value: "14d"},
		},
		Action: onHost(runVolumeRm),
	}
}

func volumeRestoreCommand() *cli.Command {
	return &cli.Command{Name: "restore", Usage: "take a volume out of the trash", ArgsUsage: "ID", Action: onHost(runVolumeRestore)}
}

func volumePurgeCommand() *cli.Command {
	return &cli.Command{
		Name: "purge", Usage: "remove for good what is in the trash and has expired, or one volume there", ArgsUsage: "[ID]",
		Flags:  []cli.Flag{&cli.BoolFlag{Name: "force", Aliases: []string{"f"}, Usage: "one that has not expired, too"}},
		Action: onHost(runVolumePurge),
	}
}

func runVolumeRm(ctx context.Context, c *command, h *vmdisk.Host) error {
	args, err := c.arguments("VOLUME")
	if err != nil {
		return err
	}
	if !c.Bool("trash") {
		if c.IsSet("expires") {
			return usagef("--expires is for --trash")
		}
		if err := h.RemoveVolume(ctx, args[0]); err != nil {
			return err
		}
		return c.ui.result(map[string]string{"id": args[0]}, "%s is removed", args[0])
	}
	keep, err := parseDays(c.String("expires"))
	if err != nil {
		return err
	}
	t, err := h.TrashVolume(ctx, args[0], keep)
	if err != nil {
		return err
	}
	id := disk.VolumeID(t.Image)
	return c.ui.result(trashed(t), "%s is in the trash, until %s at least; to have it back:  vmdisk volume restore %s", id, day(t.Expires), id)
}

func runVolumeRestore(ctx context.Context, c *command, h *vmdisk.Host) error {
	args, err := c.arguments("ID")
	if err != nil {
		return err
	}
	v, err := h.RestoreVolume(ctx, args[0])
	if err != nil {
		return err
	}
	return c.ui.result(v, "%s is restored", v.Name())
}

func runVolumePurge(ctx context.Context, c *command, h *vmdisk.Host) error {
	if !c.Args().Present() {
		if c.Bool("force") {
			return usagef("--force is for one volume; usage: %s", c.usage())
		}
		purged, err := h.PurgeVolumes(ctx)
		all := []trashedVolume{}
		for _, t := range purged {
			all = append(all, trashed(t))
		}
		if printed := c.ui.result(all, "%d removed for good", len(all)); printed != nil {
			return printed
		}
		return err
	}
	args, err := c.arguments("ID")
	if err != nil {
		return err
	}
	t, err := h.PurgeVolume(ctx, args[0], c.Bool("force"))
	if err != nil {
		return err
	}
	return c.ui.result(trashed(t), "%s is removed for good", disk.VolumeID(t.Image))
}

// trashedVolume is a volume in the trash as JSON has it.
type trashedVolume struct {
	ID string `json:"id"`
	disk.Trashed
}

func trashed(t disk.Trashed) trashedVolume { return trashedVolume{disk.VolumeID(t.Image), t} }

func listTrash(ctx context.Context, c *command, h *vmdisk.Host) error {
	found, err := h.TrashedVolumes(ctx)
	if err != nil {
		return err
	}
	all, rows := []trashedVolume{}, []string{}
	for _, t := range found {
		all = append(all, trashed(t))
		rows = append(rows, strings.Join([]string{disk.VolumeID(t.Image), day(t.Deleted), day(t.Expires)}, "\t"))
	}
	return c.ui.table(all, "the trash is empty", "ID\tDELETED\tKEPT UNTIL", rows)
}

func day(t time.Time) string { return t.Local().Format("2006-01-02 15:04") }

// parseDays reads 14d, or what Go reads as a duration.
func parseDays(text string) (time.Duration, error) {
	var days int
	if n, err := fmt.Sscanf(text, "%dd", &days); err == nil && n == 1 && text == fmt.Sprintf("%dd", days) {
		text = fmt.Sprintf("%dh", 24*days)
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < 0 {
		return 0, usagef("%q is not a time such as 14d or 12h", text)
	}
	return d, nil
}
