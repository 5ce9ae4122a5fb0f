// vmdisk boot

package main

import (
	"context"
	"fmt"
	"os"

	"github.com/urfave/cli/v2"
	"github.com/vmdisk/vmdisk"
	"github.com/vmdisk/vmdisk/disk"
)

func bootCommand() *cli.Command {
	return &cli.Command{
		Name:      "boot",
		Usage:     "clone an image and start a machine on it",
		ArgsUsage: "VM --image ID|FILE|URL",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "image", Usage: "boot from a clone of `[POOL/]ID[@SNAP]`, or from a file or URL at once"},
			&cli.StringFlag{Name: "size", Usage: "grow the root disk to `SIZE`", DefaultText: "the image's"},
			&cli.StringFlag{Name: "memory", Usage: "memory of the machine, `SIZE`", Value: "1G"},
			&cli.UintFlag{Name: "vcpus", Usage: "`NUMBER` of virtual CPUs", Value: vmdisk.DefaultVCPUs},
			&cli.StringFlag{Name: "uuid", Usage: "`UUID` of the machine", DefaultText: "new"},
			&cli.IntFlag{Name: "count", Usage: "boot `N` machines, VM-1 to VM-N", Value: 1},
			&cli.StringSliceFlag{Name: "ephemeral", Usage: "a further empty disk of `SIZE` that goes with the machine; may be repeated"},
			&cli.StringFlag{Name: "swap", Usage: "a swap disk of `SIZE`", DefaultText: "none"},
			&cli.StringFlag{Name: "user-data", Usage: "make a config drive with `FILE` as cloud-init's user data"},
			&cli.StringFlag{Name: "meta-data", Usage: "and `FILE` as its meta data", DefaultText: "UUID and name of the machine"},
			&cli.StringFlag{Name: "network-config", Usage: "and `FILE` as its network configuration"},
			&cli.StringFlag{Name: "domain-xml", Usage: "supply the disks of the domain in `FILE` (- is standard input)"},
			&cli.StringSliceFlag{Name: "network", Usage: "an interface in libvirt's network `NET`; may be repeated"},
			&cli.StringFlag{Name: "format", Usage: "raw: take the image as it is, whatever `FORMAT` its first bytes say; of a file or URL also qcow2", DefaultText: "by its first bytes"},
			&cli.BoolFlag{Name: "no-start", Usage: "define the machine and leave it off"},
		},
		Description: `The disks are vda (root), then the ephemeral ones, swap, and the config drive,
which is read-only and found by its label, cidata. They are in Ceph, migrate with
the machine and are removed with it.

  vmdisk boot web1 --image debian-12 --size 10G --swap 1G --user-data web.yaml
  vmdisk boot web2 --image https://example.org/debian-12.qcow2 --size 10G

A FILE (it begins with / or .) or URL of a raw or qcow2 need not be imported: the
machine runs as soon as from a clone and reads from there what is not in Ceph
yet. The command says so and goes on to bring it, in the foreground; with --wait
it says so when that is done. Ctrl-C, or a failure, then leaves the machine
running, and vmdisk fill goes on.`,
		Action: onHost(runBoot),
	}
}

func runBoot(ctx context.Context, c *command, h *vmdisk.Host) error {
	args, err := c.arguments("VM")
	if err != nil {
		return err
	}
	o, err := bootOptions(c)
	if err != nil {
		return err
	}
	if !c.IsSet("count") {
		vm, err := h.Boot(ctx, args[0], o)
		if err != nil {
			return err
		}
		return c.booted(ctx, h, vm)
	}
	if disk.IsOrigin(o.Image) {
		return usagef("--count with a file or URL: import it first, all can be its clones (vmdisk image import)")
	}
	var names []string
	for i := range c.Int("count") {
		names = append(names, fmt.Sprintf("%s-%d", args[0], i+1))
	}
	booted, errs := h.BootMany(ctx, names, o)
	vms := []vmdisk.VM{}
	for i, vm := range booted {
		if errs[i] == nil {
			vms = append(vms, vm)
		}
	}
	for _, vm := range vms {
		if err := c.ui.text(bootedLine(vm)); err != nil {
			return err
		}
	}
	if err := c.ui.result(vms, ""); err != nil {
		return err
	}
	return failures(errs).orNil()
}

func bootOptions(c *command) (o vmdisk.BootOptions, err error) {
	if c.String("image") == "" {
		return o, usagef("--image is missing; vmdisk image ls lists them")
	}
	if c.Int("count") < 1 || c.Int("count") > 1 && c.String("uuid") != "" {
		return o, usagef("--count %d is not at least 1, or is given with --uuid", c.Int("count"))
	}
	if c.Uint("vcpus") == 0 {
		return o, usagef("--vcpus is 0")
	}
	o = vmdisk.BootOptions{
		Image: c.String("image"), UUID: c.String("uuid"), VCPUs: c.Uint("vcpus"),
		Networks: c.StringSlice("network"), NoStart: c.Bool("no-start"), Format: c.String("format"),
	}
	formats := []string{"", "raw"}
	if disk.IsOrigin(o.Image) {
		formats = append(formats, "qcow2")
	}
	if err := oneOf("--format", o.Format, formats...); err != nil {
		return o, err
	}
	if o.Size, err = optionalSize(c.String("size")); err != nil {
		return o, err
	}
	if o.Memory, err = parseSize(c.String("memory")); err != nil {
		return o, err
	}
	if err := diskOptions(c, &o); err != nil {
		return o, err
	}
	o.DomainXML, err = readXML(c)
	return o, err
}

// rawFlag is the way past the refusal of an image that does not look raw.
func rawFlag() cli.Flag {
	return &cli.StringFlag{Name: "format", Usage: "raw: take the image as it is, whatever `FORMAT` its first bytes say", DefaultText: "by its first bytes"}
}

// readXML reads the caller's own domain, which then says what the flags would.
func readXML(c *command) (string, error) {
	path := c.String("domain-xml")
	if path == "" {
		return "", nil
	}
	for _, flag := range []string{"memory", "vcpus", "network"} {
		if c.IsSet(flag) {
			return "", usagef("--%s and --domain-xml exclude each other: the domain says it", flag)
		}
	}
	if path == "-" {
		path = "/dev/stdin"
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return "", usagef("domain XML: %v", err)
	}
	if len(data) == 0 {
		return "", usagef("domain XML %s is empty", path)
	}
	return string(data), nil
}

func bootedLine(vm vmdisk.VM) string {
	return fmt.Sprintf("%s is %s on %s, %s", vm.Name, vm.State, vm.Host, vm.UUID)
}
