// vmdisk attach, detach

package main

import (
	"context"

	"github.com/urfave/cli/v2"
	"github.com/vmdisk/vmdisk"
)

func attachCommand() *cli.Command {
	return &cli.Command{
		Name: "attach", Usage: "plug a volume into a machine, live and for good", ArgsUsage: "VM VOLUME",
		Description: "VOLUME is an ID, volume-ID, or POOL/IMAGE.\n" +
			"Example: vmdisk attach web1 data1 --total-iops-sec 500 --total-bytes-sec 100M",
		Flags: append([]cli.Flag{&cli.StringFlag{Name: "target", Usage: "plug it in as `vdX`", DefaultText: "first free"}}, qosFlags()...),
		Action: onHost(func(ctx context.Context, c *command, h *vmdisk.Host) error {
			args, err := c.arguments("VM", "VOLUME")
			if err != nil {
				return err
			}
			o := vmdisk.AttachOptions{Target: c.String("target")}
			if _, err := readQoS(c, &o.QoS); err != nil {
				return err
			}
			a, err := h.Attach(ctx, args[0], args[1], o)
			if err != nil {
				return err
			}
			return c.ui.result(a, "%s/%s is %s of %s", a.Pool, a.Image, a.Target, a.VM)
		}),
	}
}

func detachCommand() *cli.Command {
	return &cli.Command{
		Name: "detach", Usage: "plug a volume out of a machine, when the guest lets go", ArgsUsage: "VM VOLUME|vdX",
		Action: onHost(func(ctx context.Context, c *command, h *vmdisk.Host) error {
			args, err := c.arguments("VM", "VOLUME|vdX")
			if err != nil {
				return err
			}
			a, err := h.Detach(ctx, args[0], args[1])
			if err != nil {
				return err
			}
			return c.ui.result(a, "%s/%s is free", a.Pool, a.Image)
		}),
	}
}
