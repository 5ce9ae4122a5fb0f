// vmdisk cluster init, df

package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/urfave/cli/v2"
	"github.com/vmdisk/vmdisk"
	"github.com/vmdisk/vmdisk/disk"
)

func clusterCommand() *cli.Command {
	return &cli.Command{
		Name: "cluster", Usage: "what a cluster and its hosts need, and how much room there is",
		Subcommands: []*cli.Command{
			{
				Name: "init", Usage: "make pools, cephx users, keyrings, client configuration, folders and secret",
				Description: "Makes what is missing and leaves what is there; what differs is reported, and\n" +
					"changed with --force. Run again, it changes nothing.\n\n" +
					"vmdisk cluster init --id admin                  all of it\n" +
					"vmdisk cluster init --id admin --cluster-only   pools and users, once\n" +
					"vmdisk cluster init --id admin --host-only      the rest, on each host\n" +
					"vmdisk cluster init --id admin --host-only --no-libvirt --user glance --keyring-owner glance",
				Flags: []cli.Flag{
					&cli.BoolFlag{Name: "cluster-only", Usage: "only pools and users"},
					&cli.BoolFlag{Name: "host-only", Usage: "only what is on this host"},
					&cli.BoolFlag{Name: "dry-run", Usage: "tell what is missing and differs, and change nothing"},
					&cli.BoolFlag{Name: "force", Usage: "also change what differs"},
					&cli.BoolFlag{Name: "instant-restore", Usage: "let client.cinder read the pool of backups, for backup restore --instant"},
					&cli.IntFlag{Name: "pg-num", Usage: "new pools get `N` placement groups", DefaultText: "as the cluster chooses"},
					&cli.StringSliceFlag{Name: "user", Usage: "keyring of `USER` only: glance, cinder or cinder-backup; may be repeated", DefaultText: "all"},
					&cli.StringFlag{Name: "keyring-dir", Usage: "keyrings go to `DIR`", Value: "/etc/ceph"},
					&cli.StringFlag{Name: "keyring-owner", Usage: "keyrings belong to `USER[:GROUP]`", DefaultText: "whoever calls"},
					&cli.BoolFlag{Name: "no-libvirt", Usage: "this host has no machines: no folders for them, no secret"},
					&cli.StringFlag{Name: "qemu-user", Usage: "the folders belong to `USER[:GROUP]`", DefaultText: "as libvirt says"},
					&cli.StringFlag{Name: "tmpfiles-dir", Usage: "systemd-tmpfiles looks in `DIR`", Value: "/etc/tmpfiles.d"},
				},
				Action: onHost(runClusterInit),
			},
			{
				Name: "df", Usage: "how much room there is", ArgsUsage: "[POOL...]", Action: onHost(runClusterDf),
				Description: "USED counts every copy of the data, AVAILABLE is what can still be written.",
			},
		},
	}
}

func runClusterInit(ctx context.Context, c *command, h *vmdisk.Host) error {
	if _, err := c.arguments(); err != nil {
		return err
	}
	if c.IsSet("pg-num") && c.Int("pg-num") < 1 {
		return usagef("--pg-num %d is not at least 1", c.Int("pg-num"))
	}
	o := vmdisk.InitOptions{
		ClusterOnly: c.Bool("cluster-only"), HostOnly: c.Bool("host-only"),
		DryRun: c.Bool("dry-run"), Force: c.Bool("force"), InstantRestore: c.Bool("instant-restore"), PGs: c.Int("pg-num"),
		KeyringDir: c.String("keyring-dir"), KeyringOwner: c.String("keyring-owner"),
		NoLibvirt: c.Bool("no-libvirt"), QEMUOwner: c.String("qemu-user"), TmpfilesDir: c.String("tmpfiles-dir"),
	}
	for _, user := range c.StringSlice("user") {
		o.Users = append(o.Users, bareUser(user))
	}
	items, err := h.Init(ctx, o)
	if items == nil {
		return err
	}
	var rows []string
	for _, i := range items {
		if i.State == vmdisk.Found { // a person need not read how it is
			i.Detail = ""
		}
		rows = append(rows, strings.TrimRight(fmt.Sprintf("%s\t%s\t%s\t%s", i.State, i.Kind, i.Name, i.Detail), "\t"))
	}
	if printing := c.ui.table(items, "", "STATE\tKIND\tNAME\tDETAIL", rows); printing != nil {
		return printing
	}
	return err
}

func runClusterDf(ctx context.Context, c *command, h *vmdisk.Host) error {
	all, err := h.Capacity(ctx, c.Args().Slice()...)
	if err != nil {
		return err
	}
	var rows []string
	for _, p := range all.Pools {
		quota := "-"
		if p.Quota > 0 {
			quota = disk.FormatSize(p.Quota)
		}
		rows = append(rows, fmt.Sprintf("%s\t%s\t%s\t%s\t%s", p.Pool, disk.FormatSize(p.Stored),
			disk.FormatSize(p.Used), disk.FormatSize(p.Available), quota))
	}
	rows = append(rows, fmt.Sprintf("all\t\t%s\t%s\t", disk.FormatSize(all.Used), disk.FormatSize(all.Available)))
	return c.ui.table(all, "", "POOL\tSTORED\tUSED\tAVAILABLE\tQUOTA", rows)
}
