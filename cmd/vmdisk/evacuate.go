// vmdisk evacuate

package main

import (
	"context"

	"github.com/urfave/cli/v2"
	"github.com/vmdisk/vmdisk"
)

func evacuateCommand() *cli.Command {
	return &cli.Command{
		Name: "evacuate", Usage: "take a machine from a dead host and start it here", ArgsUsage: "VM --from HOST",
		Description: `HOST does not answer: dead, frozen or cut off. Every client that could still write
to the machine's disks is fenced first, for a year; then it starts on this host, from
its definition in Ceph. A host whose libvirt answers is refused. When HOST is back,
"vmdisk repair" there clears away what is left, and lifts the fences or says how: that
takes more than the caps of client.cinder.

  vmdisk evacuate web1 --from compute1`,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "from", Usage: "the `HOST` that is dead: its name, or its libvirt URI"},
			&cli.BoolFlag{Name: "no-start", Usage: "leave the machine shut off"},
			&cli.BoolFlag{Name: "force", Usage: "do not ask whether HOST answers"},
		},
		Action: onVM(func(ctx context.Context, c *command, h *vmdisk.Host, vm string) error {
			if c.String("from") == "" {
				return usagef("--from HOST is missing, the host that does not answer")
			}
			v, err := h.Evacuate(ctx, vm, vmdisk.EvacuateOptions{From: c.String("from"), NoStart: c.Bool("no-start"), Force: c.Bool("force")})
			if err != nil {
				return err
			}
			return c.ui.result(v, "%s", bootedLine(v))
		}),
	}
}
