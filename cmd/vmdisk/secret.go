// vmdisk secret set, ls

package main

import (
	"context"
	"fmt"

	"github.com/urfave/cli/v2"
	"github.com/vmdisk/vmdisk"
)

func secretCommand() *cli.Command {
	return &cli.Command{
		Name: "secret", Usage: "libvirt secrets with cephx keys",
		Subcommands: []*cli.Command{
			{Name: "set", Usage: "give the host the key of the cephx user, from the keyring", Action: onHost(runSecretSet)},
			{Name: "ls", Aliases: []string{"list"}, Usage: "list the host's secrets for Ceph", Action: onHost(runSecretLs)},
		},
	}
}

func runSecretSet(ctx context.Context, c *command, h *vmdisk.Host) error {
	if _, err := c.arguments(); err != nil {
		return err
	}
	s, change, err := h.SetSecret(ctx)
	if err != nil {
		return err
	}
	return c.ui.result(s, "%s %s, %s", s.Usage, change, s.UUID)
}

func runSecretLs(ctx context.Context, c *command, h *vmdisk.Host) error {
	if _, err := c.arguments(); err != nil {
		return err
	}
	secrets, err := h.Secrets(ctx)
	if err != nil {
		return err
	}
	var rows []string
	for _, s := range secrets {
		rows = append(rows, fmt.Sprintf("%s\t%s\t%s", s.UUID, s.User, s.Usage))
	}
	return c.ui.table(secrets, "no secrets for Ceph", "UUID\tUSER\tUSAGE", rows)
}
