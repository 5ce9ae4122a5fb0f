// The limits of an attached volume: flags of attach, and vmdisk volume qos.

package main

import (
	"context"
	"strconv"
	"strings"

	"github.com/urfave/cli/v2"
	"github.com/vmdisk/vmdisk"
	"github.com/vmdisk/vmdisk/domain"
)

// qosFlags are virsh blkdeviotune's, in its order.
func qosFlags() []cli.Flag {
	var flags []cli.Flag
	for _, unit := range []string{"bytes", "iops"} {
		value := "SIZE"
		if unit == "iops" {
			value = "NUMBER"
		}
		for _, part := range []string{"total", "read", "write"} {
			base, what := part+"-"+unit+"-sec", part+" "+unit
			flags = append(flags,
				&cli.StringFlag{Name: base, Usage: "limit " + what + " a second to `" + value + "`", DefaultText: "no limit"},
				&cli.StringFlag{Name: base + "-max", Usage: "let a burst reach `" + value + "`", DefaultText: "none"},
				&cli.StringFlag{Name: base + "-max-length", Usage: "for so many `SECONDS`", DefaultText: "1"})
		}
	}
	return append(flags,
		&cli.StringFlag{Name: "size-iops-sec", Usage: "count every `SIZE` of a request as one", DefaultText: "whole requests"},
		&cli.StringFlag{Name: "group-name", Usage: "share the limits with the machine's disks of the same `NAME`"})
}

// readQoS changes the limits that were given as flags, and says whether any were.
func readQoS(c *command, q *domain.QoS) (given bool, err error) {
	for _, f := range qosFlags() {
		flag := f.Names()[0]
		if !c.IsSet(flag) {
			continue
		}
		given = true
		if flag == "group-name" {
			q.GroupName = c.String(flag)
			continue
		}
		n, err := parseLimit(flag, c.String(flag))
		if err != nil {
			return given, err
		}
		*q.Limit(strings.ReplaceAll(flag, "-", "_")) = n
	}
	return given, nil
}

// parseLimit reads a size for bytes, else a number; 0 lifts the limit.
func parseLimit(flag, text string) (uint64, error) {
	bytes := strings.Contains(flag, "bytes") && !strings.HasSuffix(flag, "length") || strings.HasPrefix(flag, "size")
	if text == "0" {
		return 0, nil
	}
	if bytes {
		n, err := parseSize(text)
		return uint64(n), err
	}
	n, err := strconv.ParseUint(text, 10, 63)
	if err != nil {
		return 0, usagef("--%s %q is not a number", flag, text)
	}
	return n, nil
}

func volumeQoSCommand() *cli.Command {
	return &cli.Command{
		Name: "qos", Usage: "show or change how fast a machine may use a volume, also while it does", ArgsUsage: "VM VOLUME|vdX",
		Description: "The limits that are given are changed, the others stay; 0 lifts one.\n" +
			"Example: vmdisk volume qos web1 data1 --read-iops-sec 500 --total-bytes-sec 100M",
		Flags:  append(qosFlags(), &cli.BoolFlag{Name: "none", Usage: "lift all limits first"}),
		Action: onHost(runVolumeQoS),
	}
}

func runVolumeQoS(ctx context.Context, c *command, h *vmdisk.Host) error {
	args, err := c.arguments("VM", "VOLUME|vdX")
	if err != nil {
		return err
	}
	a, err := h.QoS(ctx, args[0], args[1])
	if err != nil {
		return err
	}
	var q domain.QoS
	if a.QoS != nil && !c.Bool("none") {
		q = *a.QoS
	}
	given, err := readQoS(c, &q)
	if err != nil {
		return err
	}
	if given || c.Bool("none") {
		if a, err = h.SetQoS(ctx, args[0], args[1], q); err != nil {
			return err
		}
	}
	return c.ui.result(a, "%s/%s, %s of %s: %s", a.Pool, a.Image, a.Target, a.VM, q)
}
