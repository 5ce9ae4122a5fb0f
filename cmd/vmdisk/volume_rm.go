// vmdisk volume rm, restore, purge, ls --trash

package main

import (
	"context"
	"fmt"

	"github.com/urfave/cli/v2"
	"github.com/vmdisk/vmdisk"
	"github.com/vmdisk/vmdisk/disk"
)

func volumeRmCommand() *cli.Command {
	return &cli.Command{
		Name: "rm", Usage: "remove volumes that nobody uses", ArgsUsage: "VOLUME...",
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
	args, err := c.several("VOLUME")
	if err != nil {
		return err
	}
	if !c.Bool("trash") {
		if c.IsSet("expires") {
			return usagef("--expires is for --trash")
		}
		return doMany(c, args, func(volume string) (map[string]string, error) {
			return map[string]string{"id": volume}, h.RemoveVolume(ctx, volume)
		}, func(r map[string]string) string { return r["id"] + " is removed" })
	}
	keep, err := c.keep()
	if err != nil {
		return err
	}
	return doMany(c, args, func(volume string) (trashed, error) {
		t, err := h.TrashVolume(ctx, volume, keep)
		return trashedVolume(t), err
	}, func(t trashed) string {
		return fmt.Sprintf("%s is in the trash, until %s at least; to have it back:  vmdisk volume restore %s", t.ID, minute(t.Expires), t.ID)
	})
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
		all := []trashed{}
		for _, t := range purged {
			all = append(all, trashedVolume(t))
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
	return c.ui.result(trashedVolume(t), "%s is removed for good", disk.VolumeID(t.Image))
}

func listTrashedVolumes(ctx context.Context, c *command, h *vmdisk.Host) error {
	found, err := h.TrashedVolumes(ctx)
	if err != nil {
		return err
	}
	return c.listTrash(found, trashedVolume)
}
