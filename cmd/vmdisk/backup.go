// vmdisk backup create, ls, info, restore, verify, rm, record

package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/urfave/cli/v2"
	"github.com/vmdisk/vmdisk"
	"github.com/vmdisk/vmdisk/disk"
)

func backupCommand() *cli.Command {
	return &cli.Command{
		Name: "backup", Usage: "volumes as they were, in another pool, as Cinder keeps them",
		Subcommands: []*cli.Command{
			{
				Name: "create", Usage: "back a volume up, in use or not", ArgsUsage: "VOLUME",
				Description: "Example, every night:  vmdisk backup create 7b6d… --incremental --keep 14",
				Flags: []cli.Flag{
					&cli.BoolFlag{Name: "incremental", Aliases: []string{"i"}, Usage: "only what changed since the last backup"},
					&cli.BoolFlag{Name: "differential", Usage: "only what changed since the last full backup"},
					&cli.StringFlag{Name: "name", Aliases: []string{"backup"}, Usage: "`ID` of the backup", DefaultText: "new UUID"},
					&cli.StringFlag{Name: "snapshot", Usage: "back up this `SNAPSHOT` of the volume", DefaultText: "taken now"},
					&cli.BoolFlag{Name: "no-freeze", Usage: "leave the guest alone, the backup is as after a power cut"},
					&cli.IntFlag{Name: "keep", Usage: "then remove the oldest of more than `N` backups of the volume"},
				},
				Action: onHost(runBackupCreate),
			},
			{Name: "ls", Aliases: []string{"list"}, Usage: "list backups", ArgsUsage: "[VOLUME]", Action: onHost(runBackupLs)},
			{Name: "info", Usage: "describe a backup", ArgsUsage: "ID", Action: onHost(runBackupInfo)},
			{
				Name: "restore", Usage: "make a new volume of a backup, or put it in a volume's place", ArgsUsage: "ID",
				Description: `The volume is replaced when the new one is whole; what it was goes to the trash.

  vmdisk backup restore 0562… --to 7b6d…

With --instant a new volume is there at once, whatever its size, and reads from
the backup what it has not of its own. It can be attached. What it still reads
from there is brought, attached or not, by

  vmdisk volume flatten ID

which can be interrupted; with --wait this command does that, too, and ends when
it is done. Until then the backup cannot be removed.`,
				Flags: []cli.Flag{
					&cli.StringFlag{Name: "to", Usage: "replace this `VOLUME`, which nobody uses", DefaultText: "a new volume"},
					&cli.StringFlag{Name: "name", Usage: "`ID` of the new volume", DefaultText: "new UUID"},
					&cli.BoolFlag{Name: "instant", Usage: "make a new volume that can be used before its data is in it"},
				},
				Action: onHost(runBackupRestore),
			},
			{Name: "verify", Usage: "read a backup, or all of a volume, and compare checksums", ArgsUsage: "ID|VOLUME", Action: onHost(runBackupVerify)},
			{Name: "rm", Usage: "remove a backup; the others of its chain stay whole", ArgsUsage: "ID", Action: onHost(runBackupRm)},
			{
				Name: "record", Usage: "print the record by which Cinder imports a backup", ArgsUsage: "ID",
				Description: "Example:  cinder backup-import " + vmdisk.BackupService + " $(vmdisk backup record 0562…)",
				Action:      onHost(runBackupRecord),
			},
		},
	}
}

func runBackupCreate(ctx context.Context, c *command, h *vmdisk.Host) error {
	args, err := c.arguments("VOLUME")
	if err != nil {
		return err
	}
	o := vmdisk.BackupOptions{ID: c.String("name"), Snapshot: c.String("snapshot"), NoFreeze: c.Bool("no-freeze"), Keep: c.Int("keep")}
	switch {
	case c.Bool("incremental") && c.Bool("differential"):
		return usagef("--incremental and --differential exclude each other")
	case c.IsSet("keep") && o.Keep < 1:
		return usagef("--keep %d: at least the new backup is kept", o.Keep)
	case c.Bool("incremental"):
		o.Kind = disk.BackupIncremental
	case c.Bool("differential"):
		o.Kind = disk.BackupDifferential
	}
	b, err := h.CreateBackup(ctx, args[0], o)
	if err != nil {
		return err
	}
	return c.ui.result(b, "%s", b.ID)
}

func runBackupLs(ctx context.Context, c *command, h *vmdisk.Host) error {
	volume := ""
	if c.Args().Present() {
		args, err := c.arguments("VOLUME")
		if err != nil {
			return err
		}
		volume = args[0]
	}
	all, err := h.Backups(ctx, volume)
	if err != nil {
		return err
	}
	var rows []string
	for _, b := range all {
		kind := b.Kind
		if b.State != disk.BackupComplete {
			kind = b.State
		}
		rows = append(rows, fmt.Sprintf("%s\t%s\t%s\t%s\t%s", b.ID, b.Volume, kind, disk.FormatSize(b.Bytes), b.Created.Local().Format(time.DateTime)))
	}
	return c.ui.table(all, "no backups", "ID\tVOLUME\tKIND\tBYTES\tCREATED", rows)
}

func runBackupInfo(ctx context.Context, c *command, h *vmdisk.Host) error {
	args, err := c.arguments("ID")
	if err != nil {
		return err
	}
	b, err := h.Backup(ctx, args[0])
	if err != nil {
		return err
	}
	if c.ui.json {
		return c.ui.result(b, "")
	}
	rows := []string{
		"volume\t" + b.VolumeName().String(),
		"kind\t" + b.Kind,
		"state\t" + b.State,
		"created\t" + b.Created.Local().Format(time.DateTime) + ", by " + b.By,
		"size\t" + disk.FormatSize(b.Size),
		"bytes\t" + disk.FormatSize(b.Bytes),
		"kept in\t" + b.Base + "@" + b.Snapshot,
	}
	if b.Parent != "" {
		rows = append(rows, "difference to\t"+b.Parent)
	}
	return c.ui.table(b, "", "id\t"+b.ID, rows)
}

func runBackupRestore(ctx context.Context, c *command, h *vmdisk.Host) error {
	args, err := c.arguments("ID")
	if err != nil {
		return err
	}
	if c.String("to") != "" && c.String("name") != "" {
		return usagef("--to names a volume that is there, --name a new one; give one of them")
	}
	if c.String("to") != "" && c.Bool("instant") {
		return usagef("--instant makes a new volume, and --to replaces one; give one of them")
	}
	v, err := h.RestoreBackup(ctx, args[0], vmdisk.RestoreOptions{To: c.String("to"), ID: c.String("name"), Instant: c.Bool("instant")})
	if err != nil {
		return err
	}
	if c.Bool("instant") {
		return c.restored(ctx, h, v)
	}
	return c.ui.result(v, "%s", v.ID)
}

// restored says that a volume is there, which reads from its backup; if that is waited for,
// when it has all of its own.
func (c *command) restored(ctx context.Context, h *vmdisk.Host, v disk.Volume) error {
	if !c.Bool("wait") {
		c.ui.observe(vmdisk.Event{Kind: vmdisk.Note, Op: "restore", Object: v.ID, Step: "note",
			Detail: "to bring what it still reads from the backup, attached or not:  vmdisk volume flatten " + v.ID})
		return c.ui.result(v, "%s", v.ID)
	}
	whole, err := h.FlattenVolume(ctx, v.Name().String())
	var e *vmdisk.Error
	if errors.As(err, &e) && e.Next == "" {
		e.State = v.Name().String() + " can be used; what it has not yet it reads from " + v.Parent
		e.Next = "to go on:  vmdisk volume flatten " + v.ID
	}
	if err != nil {
		return err
	}
	return c.ui.result(whole, "%s", whole.ID)
}

func runBackupVerify(ctx context.Context, c *command, h *vmdisk.Host) error {
	args, err := c.arguments("ID|VOLUME")
	if err != nil {
		return err
	}
	results, failure := h.VerifyBackups(ctx, args[0])
	if len(results) == 0 {
		return failure
	}
	var rows []string
	for _, v := range results {
		rows = append(rows, fmt.Sprintf("%s\t%s\t%d\t%s", v.ID, v.Method, v.Blocks, verdict(v)))
	}
	if err := c.ui.table(results, "", "ID\tCOMPARED WITH\tBLOCKS\tRESULT", rows); err != nil {
		return err
	}
	return failure
}

func verdict(v disk.Verification) string {
	switch {
	case len(v.Bad) > 0:
		return fmt.Sprintf("%d bad, the first at offset %d", len(v.Bad), v.Bad[0].Offset)
	case v.Method == disk.VerifiedNot:
		return "not known: no checksums (Cinder made it), and no snapshot to compare with"
	case v.Part:
		return "good, as far as there are checksums"
	}
	return "good"
}

func runBackupRm(ctx context.Context, c *command, h *vmdisk.Host) error {
	args, err := c.arguments("ID")
	if err != nil {
		return err
	}
	b, err := h.RemoveBackup(ctx, args[0])
	if err != nil {
		return err
	}
	return c.ui.result(b, "%s is removed", b.ID)
}

func runBackupRecord(ctx context.Context, c *command, h *vmdisk.Host) error {
	args, err := c.arguments("ID")
	if err != nil {
		return err
	}
	record, err := h.BackupRecord(ctx, args[0])
	if err != nil {
		return err
	}
	return c.ui.result(map[string]string{"backup_service": vmdisk.BackupService, "backup_url": record}, "%s", record)
}
